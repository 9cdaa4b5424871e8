"""Actor-critics over state graphs: the default policy and its replaceable parts."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from gnnrl_lightning.checks import one_of
from gnnrl_lightning.rl.encoders import Encoder
from gnnrl_lightning.rl.policies.distributions import UnitDistribution
from gnnrl_lightning.rl.policies.heads import HEADS, Critic, Head
from gnnrl_lightning.rl.policies.log_keep import NEVER, LogKeep
from gnnrl_lightning.rl.policies.outputs import as_output
from gnnrl_lightning.rl.policies.readout import sum_over_decisions
from gnnrl_lightning.rl.state.graph import StateGraph

EDGE = 0.005
"""Smallest distance of initial actions from 0 and 1, where the gradients vanish."""

LOCATIONS = "location and spread for each decision, or these and the log-odds of removing the group"
"""What an actor returns."""


def proposed(state: StateGraph) -> Tensor | None:
    """The proposed initial actions (D,) in (0, 1), or None if the states have no proposals."""
    proposal = getattr(state, "proposal", None)
    return None if proposal is None else proposal.clamp(EDGE, 1 - EDGE)


class ActorCritic(nn.Module):
    """A stochastic policy with a value function, built from an actor and a critic.

    Args:
        actor: Maps a batch of B state graphs with D decisions in total to (D, 2), location and spread parameters, or to
            (D, 3), with the log-odds of removing whole groups, which count if the state has `proposal_odds`.
        critic: Maps the batch to values (B,).
        distribution: Distribution of the actions, given these parameters.
        fixed_spread: Whether to keep the initial spread and ignore the actor's spread output.

    The actor's output is an offset from initial actions. An untrained actor, whose output is close to zero, therefore
    takes the initial actions: the state's field `proposal` (D,) if it exists, else one action for all decisions
    (`centre_on`). The policy learns corrections to the widths of a cheap method.

    Decisions are flat: the graphs of a batch may differ in their number of decisions, and the state's
    `decision_batch` (D,) maps each decision to its graph. Log-probabilities and entropies are sums over the decisions
    of a graph.

    Any object with equivalent `act(state)` and `evaluate(state, action)` can replace this class. If it has `squash`,
    the raw actions from `act` are passed through it; otherwise they must lie in [0, 1].

    Source: learning corrections to another method's actions is residual policy learning (Silver et al., 2018).
    """

    offset: Tensor
    proposal_spread: Tensor

    def __init__(
        self,
        actor: nn.Module,
        critic: nn.Module,
        distribution: type[UnitDistribution] = LogKeep,
        fixed_spread: bool = False,
    ) -> None:
        super().__init__()
        self.actor, self.critic, self._distribution, self.fixed_spread = actor, critic, distribution, fixed_spread
        self.register_buffer("offset", torch.zeros(2))
        self.register_buffer("proposal_spread", torch.tensor(0.05))

    @property
    def description(self) -> dict[str, str]:
        """Settings that affect the actions but not the weights, for `save_policy`."""
        name = f"{self._distribution.__module__}.{self._distribution.__qualname__}"
        return {"distribution": name, "fixed_spread": str(self.fixed_spread)}

    def centre_on(self, action: float, spread: float, proposal_spread: float = 0.05) -> None:
        """Set the initial action and spread: those for an actor output of zero.

        Args:
            action: Mode in (0, 1), for states without proposals.
            spread: Standard deviation of the action, for states without proposals.
            proposal_spread: Standard deviation of an action around a proposal of 0.5; at least one channel (the
                state's `proposal_step`). The spread parameter does not depend on the proposal, so that the standard
                deviation is smaller near 0 and 1.
        """
        self.offset.copy_(torch.tensor(self._distribution.parameters(action, spread)))
        self.proposal_spread.fill_(proposal_spread)

    def _start(self, state: StateGraph, odds: Tensor | None) -> Tensor:
        """Distribution parameters for an actor output of zero, (2,) or (D, 2)."""
        proposal = proposed(state)
        if proposal is None:
            return self.offset
        step = cast(Any, state).proposal_step
        # With a spread below one channel, rounding would always give the same width.
        spread = self._distribution.spread_around(proposal, self.proposal_spread, step)
        start = torch.stack([self._distribution.location_of(proposal), spread], dim=-1)
        # What is gone in the proposal has no width there: if it comes back, then as wide as without proposals.
        return start if odds is None else torch.where((odds > 0)[:, None], self.offset, start)

    def distribution(self, state: StateGraph) -> UnitDistribution:
        """Distribution of the actions (D,) in a batch of states.

        Raises:
            TypeError: The actor does not return a tensor.
            ValueError: The actor does not return two numbers per decision, or three.
        """
        decisions = len(state.decision_batch)
        outputs = as_output(self.actor(state), "the actor", (decisions, 2), (decisions, 3), meaning=LOCATIONS)
        odds = getattr(state, "proposal_odds", None) if self._distribution.removes else None
        start, parameters = self._start(state, odds), outputs[:, :2]
        if self.fixed_spread:
            parameters = parameters * outputs.new_tensor([1.0, 0.0])
        if odds is None:
            return self._distribution(parameters + start)
        if outputs.shape[1] == 3:
            odds = torch.where(odds > NEVER, (odds + outputs[:, 2]).clamp(min=NEVER), NEVER)
        return cast(Any, self._distribution)(parameters + start, odds)

    @torch.no_grad()
    def act(self, state: StateGraph) -> tuple[Tensor, Tensor]:
        """Sample raw actions.

        Args:
            state: Batch of B state graphs with D decisions in total.

        Returns:
            Raw actions (D,), and the log-probability of each graph's actions (B,).
        """
        distribution = self.distribution(state)
        raw = distribution.sample()
        return raw, sum_over_decisions(distribution.log_prob(raw), state)

    @torch.no_grad()
    def mode(self, state: StateGraph) -> Tensor:
        """Deterministic raw actions (D,): the modes of the distributions."""
        return self.distribution(state).mode

    @torch.no_grad()
    def state_value(self, state: StateGraph) -> Tensor:
        """The critic's values of the states in a batch, (B,)."""
        return self._value(state)

    def _value(self, state: StateGraph) -> Tensor:
        return as_output(self.critic(state), "the critic", (state.num_graphs,), meaning="a value for each graph")

    def squash(self, action: Tensor) -> Tensor:
        """Map raw actions to actions in [0, 1]."""
        return self._distribution.squash(action)

    def evaluate(self, state: StateGraph, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate raw actions from a rollout, with gradients.

        Args:
            state: Batch of B state graphs with D decisions in total.
            action: (D,) raw actions.

        Returns:
            Log-probability, value and entropy of each graph, (B,) each.
        """
        distribution = self.distribution(state)
        log_prob, entropy = distribution.log_prob(action), distribution.entropy()
        return sum_over_decisions(log_prob, state), self._value(state), sum_over_decisions(entropy, state)


class Agent(ActorCritic):
    """The default stochastic policy.

    Args:
        state_dim: Number of node features of the state graph.
        action_dim: Decisions per graph, one per channel group; None if graphs differ in their number of decisions, as
            with several networks; the head must then be "node".
        head: "identity": an MLP shared by all decisions, with an identity embedding of each; trains fastest on a
            single network. "node": the same without identity embeddings; supports any network. "graph": the paper's
            head, an MLP from the embedding of the graph to the outputs of all decisions.
        encoder: Graph encoder, created once for the actor and once for the critic: a name in
            `gnnrl_lightning.rl.encoders.ENCODERS`, an import path, or a function of the number of node features.
        distribution: Distribution of the pruning ratios.
        actor: Function (state_dim, action_dim) -> actor, which replaces the head; None: the head.
        critic: Function (state_dim, action_dim) -> critic; None: `Critic`.
        fixed_spread: Whether to keep the initial spread.

    The paper's policy is `Agent(state_dim, action_dim, "graph", distribution=ClippedGaussian)`, with or without
    `fixed_spread`.

    Raises:
        ValueError: There is no such head, or it needs the same number of decisions in all graphs.
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int | None,
        head: str = "identity",
        encoder: str | Encoder = "MultiStage",
        distribution: type[UnitDistribution] = LogKeep,
        actor: Head | None = None,
        critic: Head | None = None,
        fixed_spread: bool = False,
    ) -> None:
        one_of("head", head, HEADS)
        make_actor = actor or partial(HEADS[head], encoder=encoder, outputs=3 if distribution.removes else 2)
        make_critic = critic or partial(Critic, encoder=encoder)
        super().__init__(
            make_actor(state_dim, action_dim),
            make_critic(state_dim, action_dim),
            distribution,
            fixed_spread,
        )
