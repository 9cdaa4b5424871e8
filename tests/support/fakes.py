"""Small networks, evaluators and tasks with known optima, for tests of search and learning."""

from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import torch
from lightning.pytorch import Callback
from torch import nn
from torch_geometric.data import Batch

import gnnrl_lightning
from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.objective import Classification
from gnnrl_lightning.rl.env.reward import FigureReward
from gnnrl_lightning.rl.state.builder import StateBuilder
from gnnrl_lightning.surrogate.sensitivity import RATIOS, Sensitivity


class SmallResNet(nn.Module):
    """Two residual blocks and a linear layer; groups: the residual stream, two inner widths, and a last width."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.inner = nn.ModuleList(nn.Conv2d(16, 24, 3, padding=1) for _ in range(2))
        self.outer = nn.ModuleList(nn.Conv2d(24, 16, 3, padding=1) for _ in range(2))
        self.last = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = self.stem(x).relu()
        for inner, outer in zip(self.inner, self.outer, strict=True):
            x = (x + outer(inner(x).relu())).relu()
        return self.head(self.last(x).relu().mean((2, 3)))


@cache
def small_graph():
    torch.manual_seed(0)
    return gnnrl_lightning.trace(SmallResNet(), torch.zeros(2, 3, 8, 8))


class Chain(nn.Module):
    """A chain of convolutions: many groups, cheap to trace."""

    def __init__(self, widths):
        super().__init__()
        sizes = [3, *widths]
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(sizes))
        self.head = nn.Linear(sizes[-1], 10)

    def forward(self, x):
        for convolution in self.convolutions:
            x = convolution(x).relu()
        return self.head(x.mean((2, 3)))


class Detector(nn.Module):
    """A backbone with two heads, whose outputs are a dictionary; no objective knows such outputs."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.boxes, self.classes = nn.Conv2d(12, 4, 1), nn.Conv2d(12, 5, 1)

    def forward(self, x):
        x = self.second(self.first(x).relu()).relu()
        return {"boxes": self.boxes(x), "classes": self.classes(x)}


def boxes_likeness(detector):
    """Return a score as a user would write it: minus the mean squared change of a detector's boxes."""
    held_out = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = detector(held_out)["boxes"]

    def score(network):
        assert not network.training
        with torch.no_grad():
            return -float((network(held_out)["boxes"] - wanted).square().mean())

    return score


@dataclass(frozen=True)
class FakeEvaluation:
    widths: tuple
    top1: float
    cross_entropy: float
    examples: int = 0
    proposer: str = ""
    dropped: bool = False

    @property
    def scores(self):
        return {"top1": self.top1, "cross_entropy": self.cross_entropy, "divergence": self.cross_entropy}

    @property
    def merit(self):
        return Classification().merit(self.scores)


TOP1 = FigureReward("top1", Classification.figures["top1"])


def scored(widths=(1,), top1=50.0, cross_entropy=1.0, divergence=0.1, **other):
    """An evaluation of a classifier."""
    scores = {"top1": top1, "cross_entropy": cross_entropy, "divergence": divergence}
    given = {"costs": {"macs": 10, "params": 5}, "seconds": 0.5, "examples": 9, "proposer": "agent"} | other
    return Evaluation(widths, scores=scores, merit=Classification().merit(scores), **given)


def rescored(evaluation, **scores):
    """The same evaluation with other figures."""
    scores = evaluation.scores | scores
    return replace(evaluation, scores=scores, merit=Classification().merit(scores))


class Landscape:
    """An evaluator with a known optimum: 100 minus a weighted squared distance of keep ratios from a target."""

    def __init__(self, graph, target, weight=None):
        self.graph, self.target = graph, target.double()
        self.weight = torch.ones_like(self.target) if weight is None else weight.double()
        self.calls = []

    def top1(self, widths):
        keep = widths.double() / self.graph.widths
        return 100 - 100 * (self.weight * (keep - self.target).square()).mean(-1)

    def __call__(self, widths, proposer):
        self.calls.append((tuple(widths.tolist()), proposer))
        top1 = float(self.top1(widths))
        return FakeEvaluation(self.calls[-1][0], top1, (100 - top1) / 10, proposer=proposer)


def random_sensitivity(graph, seed=0, examples=0):
    """Errors that fall with the width and differ from group to group by factors of up to about ten."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.randn(len(graph.groups), 1, generator=generator).exp()
    narrowed = 1 - torch.tensor(RATIOS)
    return Sensitivity.interpolate(graph.widths, RATIOS, scale * narrowed.square(), examples)


class RingTask:
    """A graph task unrelated to pruning: predict the mean height of a node's two neighbours on a ring.

    The target action of node i is the mean height of nodes i - 1 and i + 1, so a policy without message passing cannot
    solve the task. The reward is minus the mean squared error: at best 0, and -1/24 for the best constant action with
    heights uniform on [0, 1] (the variance of a mean of two).
    """

    def __init__(self, nodes=6):
        self.nodes = self.action_dim = nodes
        self.state_dim = 1
        self.initial_action = 0.5
        self.evaluations = 0
        ring = torch.arange(nodes)
        self.edge_index = torch.stack([ring, (ring + 1) % nodes])

    def reset(self, episodes, generator):
        self.heights = torch.rand(episodes, self.nodes, generator=generator)
        return self.heights.clone(), torch.zeros(episodes, dtype=torch.bool)

    def best(self, heights):
        return (heights.roll(1, 1) + heights.roll(-1, 1)) / 2

    def step(self, actions):
        self.evaluations += len(self.heights)
        rewards = -(actions.view_as(self.heights) - self.best(self.heights)).square().mean(1)
        return self.heights.clone(), rewards, torch.ones(len(rewards), dtype=torch.bool)

    def graphs(self, observations):
        episodes = len(observations)
        shift = torch.arange(episodes) * self.nodes
        count = episodes * self.nodes
        return Batch(
            x=observations.reshape(-1, 1),
            edge_index=(self.edge_index[:, None] + shift[:, None]).flatten(1),
            batch=torch.arange(episodes).repeat_interleave(self.nodes),
            ptr=torch.arange(episodes + 1) * self.nodes,
            decision_index=torch.arange(count).repeat(2, 1),
            decision_weight=torch.ones(count),
            decision_batch=torch.arange(episodes).repeat_interleave(self.nodes),
        )


def small_landscape():
    """Return the landscape of `small_graph` with its optimum at 0.7 of every width."""
    graph = small_graph()
    return Landscape(graph, torch.full((len(graph.groups),), 0.7))


def small_states(count=3):
    """Return states of `small_graph` at random widths."""
    graph = small_graph()
    widths = (torch.rand(count, len(graph.groups)) * graph.widths).long().clamp(min=1)
    return StateBuilder(graph)(widths, torch.tensor([0.5, 1.0]).expand(count, 2))


class SaveAt(Callback):
    """A callback that saves a checkpoint after a given optimiser step."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
