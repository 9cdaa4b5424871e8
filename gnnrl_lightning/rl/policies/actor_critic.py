"""Actor-critics over state graphs: the default policy and the parts that users may replace."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from gnnrl_lightning.rl.encoders import ENCODERS, Encoder
from gnnrl_lightning.rl.policies.distributions import Beta, UnitDistribution
from gnnrl_lightning.rl.policies.readout import (
    check_count,
    decision_mean,
    graph_mean,
    one_count,
    sum_over_decisions,
    to_decisions,
)
from gnnrl_lightning.rl.state.graph import StateGraph

# An actor or critic is made for a number of node features and a number of decisions in a graph, None where graphs
# have different numbers of them.
Head = Callable[[int, int | None], nn.Module]


EDGE = 0.005
"""A policy starts so far from actions of 0 and 1 at least: at these themselves nothing would be learnt."""


WIDEST = 0.25
"""Largest standard deviation of a first policy's actions around proposals."""


def proposed(state: StateGraph) -> Tensor | None:
    """The actions (D,) in (0, 1) from which a policy starts in these states, or None where they propose none."""
    proposal = getattr(state, "proposal", None)
    return None if proposal is None else proposal.clamp(EDGE, 1 - EDGE)


def mlp(sizes: list[int], last_gain: float) -> nn.Sequential:
    """Tanh layers, orthogonal, biases zero; the last one is linear and scaled by last_gain."""
    layers: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        last = number == len(sizes) - 2
        linear = nn.Linear(inputs, outputs)
        nn.init.orthogonal_(linear.weight, last_gain if last else 2**0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear] if last else [linear, nn.Tanh()]
    return nn.Sequential(*layers)


_CODES = "the head 'identity', with a code for each decision,"


class DecisionEncoder(nn.Module):
    """Embeds each decision: what its nodes are, what the whole graph is, and, if wanted, a code of its own.

    A decision sees the weighted mean of the embeddings and features of its nodes, the embedding of the whole graph,
    and with `identity` a learned code of its own, so that decisions that look alike can still come out
    differently.

    Args:
        state_dim: Node features.
        action_dim: Decisions in a graph. Only the codes depend on it: without any, graphs may have any numbers.
        encoder: Makes the graph encoder for a number of node features.
        identity: Size of the codes; 0 for none.

    Shapes:
        A batch of graphs with D decisions in all to (D, out_features).

    Raises:
        ValueError: There are codes, and a graph has another number of decisions.
    """

    def __init__(
        self, state_dim: int, action_dim: int | None, encoder: str | Encoder = "MultiStage", identity: int = 0
    ) -> None:
        super().__init__()
        self.encoder: Any = ENCODERS.find(encoder)(state_dim)
        self.codes = nn.Parameter(torch.randn(one_count(action_dim, _CODES), identity)) if identity else None
        self.out_features = 2 * int(self.encoder.out_features) + state_dim + identity

    def forward(self, state: StateGraph) -> Tensor:
        """Embedding of each decision."""
        h = self.encoder(state)
        parts = [decision_mean(torch.cat([h, state.x], dim=1), state), to_decisions(graph_mean(h, state), state)]
        if self.codes is not None:
            check_count(state, len(self.codes), _CODES)
            parts.append(self.codes.repeat(state.num_graphs, 1))
        return torch.cat(parts, dim=1)


class NodeActor(nn.Module):
    """One shared MLP over the embedding of each decision: works for any number of decisions, on any network.

    Args:
        state_dim: Node features.
        action_dim: Decisions in a graph; not used where there are no codes.
        encoder: Makes the graph encoder for a number of node features.
        hidden: Size of the hidden layers.
        identity: Size of the codes of `DecisionEncoder`. Without any (0) the head fits every network; with
            them only networks with action_dim decisions.
        outputs: Numbers for each decision; 2 for the parameters of a `UnitDistribution`.

    Shapes:
        A batch of graphs with D decisions in all to (D, outputs).

    Raises:
        ValueError: There are codes, and a graph has another number of decisions.
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int | None,
        encoder: str | Encoder = "MultiStage",
        hidden: int = 64,
        identity: int = 0,
        outputs: int = 2,
    ) -> None:
        super().__init__()
        self.decisions = DecisionEncoder(state_dim, action_dim, encoder, identity)
        self.mlp = mlp([self.decisions.out_features, hidden, hidden, outputs], last_gain=0.01)

    def forward(self, state: StateGraph) -> Tensor:
        """Numbers of each decision."""
        return self.mlp(self.decisions(state))


class GraphActor(nn.Module):
    """The paper's head: one embedding of the graph, one MLP with an output for each decision.

    Args:
        state_dim: Node features.
        action_dim: Decisions in a graph: the head fits graphs with exactly so many.
        encoder: Makes the graph encoder for a number of node features.
        hidden: Sizes of the hidden layers.
        outputs: Numbers for each decision; 2 for the parameters of a `UnitDistribution`.

    Shapes:
        A batch of B graphs with action_dim decisions each to (B action_dim, outputs).

    Raises:
        ValueError: A graph has another number of decisions.

    Source: GNN-RL (ICML 2022), section 4.3.
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int | None,
        encoder: str | Encoder = "MultiStage",
        hidden: tuple[int, ...] = (50, 50, 200),
        outputs: int = 2,
    ) -> None:
        super().__init__()
        self.action_dim, self.outputs = one_count(action_dim, "the head 'graph'"), outputs
        self.encoder: Any = ENCODERS.find(encoder)(state_dim)
        self.mlp = mlp([int(self.encoder.out_features), *hidden, outputs * self.action_dim], last_gain=0.01)

    def forward(self, state: StateGraph) -> Tensor:
        """Numbers of each decision."""
        check_count(state, self.action_dim, "the head 'graph'")
        return self.mlp(graph_mean(self.encoder(state), state)).view(-1, self.outputs)


class Critic(nn.Module):
    """Value of a state: an MLP over the embedding of the graph.

    Args:
        state_dim: Node features.
        action_dim: Decisions in a graph; not used.
        encoder: Makes the graph encoder for a number of node features.
        hidden: Size of the hidden layer.

    Shapes:
        A batch of B graphs to (B,).
    """

    def __init__(
        self, state_dim: int, action_dim: int | None, encoder: str | Encoder = "MultiStage", hidden: int = 64
    ) -> None:
        super().__init__()
        self.encoder: Any = ENCODERS.find(encoder)(state_dim)
        self.mlp = mlp([int(self.encoder.out_features), hidden, 1], last_gain=0.1)

    def forward(self, state: StateGraph) -> Tensor:
        """Expected return of each state of the batch."""
        return self.mlp(graph_mean(self.encoder(state), state)).squeeze(-1)


HEADS: dict[str, Callable[..., nn.Module]] = {
    "node": NodeActor,
    "identity": partial(NodeActor, identity=32),
    "graph": GraphActor,
}


class ActorCritic(nn.Module):
    """A stochastic policy and a value around any actor and any critic.

    Args:
        actor: Maps a batch of B state graphs with D decisions in all to (D, 2): location and spread parameters.
        critic: Maps it to (B,) values.
        distribution: Distribution of the actions with these parameters.
        fixed_spread: Whether the spread stays that of the start, whatever the actor puts out for it.

    What the actor puts out is relative to a start, so that a first policy, whose actor puts out nearly zero, takes
    the start's actions: those of the state's field `proposal` (D,) where it has one, else one action for all
    decisions (`centre_on`). A policy then learns in what to differ from a cheap method's answer.

    Decisions are flat: the graphs of a batch may have different numbers of them, and the state's `decision_batch` (D,)
    has the graph of each. Log-probabilities and entropies are sums over the decisions of a graph.

    Whatever has `act(state)` and `evaluate(state, action)` with these meanings can take its place; the raw
    actions that `act` returns go through `squash` where there is one, and are taken for actions in [0, 1]
    otherwise.

    Source: the start from another method's actions is residual policy learning (Silver et al., 2018).
    """

    offset: Tensor
    proposal_spread: Tensor

    def __init__(
        self,
        actor: nn.Module,
        critic: nn.Module,
        distribution: type[UnitDistribution] = Beta,
        fixed_spread: bool = False,
    ) -> None:
        super().__init__()
        self.actor, self.critic, self._distribution, self.fixed_spread = actor, critic, distribution, fixed_spread
        self.register_buffer("offset", torch.zeros(2))
        self.register_buffer("proposal_spread", torch.tensor(0.05))

    @property
    def description(self) -> dict[str, str]:
        """What its weights do not tell and its actions depend on: for `save_policy`."""
        name = f"{self._distribution.__module__}.{self._distribution.__qualname__}"
        return {"distribution": name, "fixed_spread": str(self.fixed_spread)}

    def centre_on(self, action: float, spread: float, proposal_spread: float = 0.05) -> None:
        """Make the actor's output relative to a start: zero means this action, with this spread.

        Args:
            action: Mode in (0, 1) where the state has no proposal.
            spread: Standard deviation of the action there.
            proposal_spread: Standard deviation of an action around a proposal of 0.5, where a channel, the state's
                `proposal_step`, is not more; near 0 and 1, where the spread parameter is the same, it is smaller.
        """
        self.offset.copy_(torch.tensor(self._distribution.parameters(action, spread)))
        self.proposal_spread.fill_(proposal_spread)

    def _start(self, state: StateGraph) -> Tensor:
        """Parameters at which the actor puts out zero, (2,) or (D, 2)."""
        proposal = proposed(state)
        if proposal is None:
            return self.offset
        # With a spread of less than a channel nothing else would be tried.
        spread = torch.maximum(self.proposal_spread, cast(Any, state).proposal_step).clamp(max=WIDEST)
        return torch.stack([self._distribution.location_of(proposal), self._distribution.spread_of(spread)], dim=-1)

    def distribution(self, state: StateGraph) -> UnitDistribution:
        """Distribution of the actions (D,) in these states.

        Raises:
            ValueError: The actor does not put out two numbers for each decision.
        """
        outputs, expected = self.actor(state), (len(state.decision_batch), 2)
        if outputs.shape != expected:
            raise ValueError(f"the actor puts out {tuple(outputs.shape)}, expected {expected}: two for each decision")
        if self.fixed_spread:
            outputs = outputs * outputs.new_tensor([1.0, 0.0])
        return self._distribution(outputs + self._start(state))

    @torch.no_grad()
    def act(self, state: StateGraph) -> tuple[Tensor, Tensor]:
        """Sample raw actions.

        Args:
            state: Batch of B state graphs with D decisions in all.

        Returns:
            Raw actions (D,), and for each graph the log-probability of its actions (B,).
        """
        distribution = self.distribution(state)
        raw = distribution.sample()
        return raw, sum_over_decisions(distribution.log_prob(raw), state)

    @torch.no_grad()
    def mode(self, state: StateGraph) -> Tensor:
        """Raw actions (D,) that the policy takes when it does not explore."""
        return self.distribution(state).mode

    @torch.no_grad()
    def state_value(self, state: StateGraph) -> Tensor:
        """What the critic expects of each state of the batch, (B,)."""
        return self.critic(state)

    def squash(self, action: Tensor) -> Tensor:
        """The actions in [0, 1] of raw actions."""
        return self._distribution.squash(action)

    def evaluate(self, state: StateGraph, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Judge raw actions taken earlier, with gradients.

        Args:
            state: Batch of B state graphs with D decisions in all.
            action: (D,) raw actions.

        Returns:
            Log-probability, value and entropy of each graph, (B,) each.
        """
        distribution = self.distribution(state)
        log_prob, entropy = distribution.log_prob(action), distribution.entropy()
        return sum_over_decisions(log_prob, state), self.critic(state), sum_over_decisions(entropy, state)


class Agent(ActorCritic):
    """The default policy for a graph with so many node features and so many channel groups to prune.

    Args:
        state_dim: Features of each node of the state graph.
        action_dim: Decisions in a graph: channel groups to prune; None where graphs have different numbers of them,
            as with several networks: then head is "node".
        head: "identity" (one MLP shared by all decisions, which also sees a code of each; learns fastest on
            one network), "node" (the same without codes, fits any network) or "graph" (the paper's: one
            embedding of the graph, one output for each decision).
        encoder: Makes a graph encoder for a number of node features, actor and critic have one each: a name of
            `gnnrl_lightning.rl.encoders.ENCODERS`, an import path, or a class or function.
        distribution: Distribution of the pruning ratios.
        actor: Makes another actor than the head's for (state_dim, action_dim).
        critic: Makes another critic for (state_dim, action_dim).
        fixed_spread: Whether the spread stays that of the start.

    The paper's policy is `Agent(state_dim, action_dim, "graph", distribution=ClippedGaussian)`, with `fixed_spread` or
    without.

    Raises:
        ValueError: There is no such head, or it needs one number of decisions for all graphs.
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int | None,
        head: str = "identity",
        encoder: str | Encoder = "MultiStage",
        distribution: type[UnitDistribution] = Beta,
        actor: Head | None = None,
        critic: Head | None = None,
        fixed_spread: bool = False,
    ) -> None:
        if head not in HEADS:
            raise ValueError(f"head is {head!r}, expected one of {', '.join(map(repr, HEADS))}")
        super().__init__(
            actor(state_dim, action_dim) if actor else HEADS[head](state_dim, action_dim, encoder=encoder),
            critic(state_dim, action_dim) if critic else Critic(state_dim, action_dim, encoder=encoder),
            distribution,
            fixed_spread,
        )
