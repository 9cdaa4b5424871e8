"""A network with two outputs, which no objective supports, pruned by a score function."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.callable import CallableEvaluator, OutputsAlone
from gnnrl_lightning.rl.env.reward import find_reward
from gnnrl_lightning.search.baselines import starting_candidates
from gnnrl_lightning.search.methods import METHODS
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.surrogate.measures import SENSITIVITIES


class Detector(nn.Module):
    """A backbone with two heads, whose outputs are a dictionary."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.boxes, self.classes = nn.Conv2d(12, 4, 1), nn.Conv2d(12, 5, 1)

    def forward(self, x):
        x = self.second(self.first(x).relu()).relu()
        return {"boxes": self.boxes(x), "classes": self.classes(x)}


@pytest.fixture
def pruner():
    torch.manual_seed(0)
    network, inputs = Detector().eval(), torch.randn(16, 3, 8, 8)
    graph = gnnrl_lightning.trace(network, inputs[:1])
    return Pruner(graph, network, inputs, repair="reconstruction", objective=OutputsAlone())


def likeness(pruner):
    """A score of a user's own: minus the mean squared change of the boxes."""
    inputs = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = pruner.network(inputs)["boxes"]

    def score(network):
        assert not network.training
        with torch.no_grad():
            return -float((network(inputs)["boxes"] - wanted).square().mean())

    return score


def test_a_candidate_has_its_score_and_is_known_afterwards(pruner):
    score = likeness(pruner)
    evaluate = CallableEvaluator(pruner, score, examples=32)
    widths = torch.tensor([4, 6])
    first = evaluate(widths, "mine")
    expected = score(pruner.prune(pruner.plan(widths)))
    assert first.scores == {"score": pytest.approx(expected)} and first.merit == (first.scores["score"],)
    assert (first.examples, first.seen, first.dropped) == (32, 32, False)
    assert evaluate(widths, "agent") == replace(first, proposer="agent", seconds=0.0, examples=0)
    other = CallableEvaluator(pruner, lambda network: pytest.fail("evaluated again"))
    other.learn([first])
    assert other(widths, "agent").scores == first.scores
    assert find_reward(None, pruner.objective)(first) == first.merit[0]


def test_a_search_with_a_sensitivity_needs_inputs_alone(pruner):
    """Outputs of any structure are compared, and the best of the search is at least as good as uniform pruning."""
    limits = Budget(macs=0.5).on(pruner.graph)
    evaluate = CallableEvaluator(pruner, likeness(pruner), examples=32)
    problem = SearchProblem(
        pruner.graph,
        limits,
        evaluate,
        30,
        starting_candidates(pruner.graph, limits),
        lambda: SENSITIVITIES["outputs"].make(pruner),
        32,
        pruner,
    )
    METHODS["greedy"].run(problem, 0)
    problem.start()
    ranked = problem.ranked()
    uniform = next(item for item in problem.history if item.proposer == "uniform")
    assert ranked[0].merit >= uniform.merit and bool((problem.sensitivity.measured > 0).any())


def test_what_is_no_score_is_refused(pruner):
    with pytest.raises(UserError, match=r"widths \[4, 6\] is nan: expected a finite number"):
        CallableEvaluator(pruner, lambda network: math.nan)(torch.tensor([4, 6]), "mine")
    with pytest.raises(UserError, match="examples is 0: expected at least 1"):
        CallableEvaluator(pruner, lambda network: 1.0, examples=0)
    taylor = Pruner(pruner.graph, pruner.network, pruner.calibration, "taylor", objective=OutputsAlone())
    with pytest.raises(UserError, match="objective OutputsAlone draws no targets: choose an importance"):
        taylor.plan(torch.tensor([4, 6]))
