"""Deterministic policies and action-value critics over state graphs, for DDPG."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from gnnrl_lightning.checks import one_of
from gnnrl_lightning.rl.encoders import Encoder
from gnnrl_lightning.rl.policies.actor_critic import proposed
from gnnrl_lightning.rl.policies.heads import HEADS, IDENTITY, DecisionEncoder, Head, mlp
from gnnrl_lightning.rl.policies.readout import mean_over_decisions
from gnnrl_lightning.rl.state.graph import StateGraph


def joined(state: StateGraph, actions: Tensor) -> StateGraph:
    """Append the actions to a state as a node feature.

    The feature is the weighted mean of the actions of the node's decisions, or 0 without decisions.

    Args:
        state: Batch of B state graphs.
        actions: (D,) in [0, 1].

    Returns:
        A batch that shares all other fields with the state.
    """
    node, decision = state.decision_index
    count, weight = len(state.x), state.decision_weight
    total = scatter(weight * actions[decision], node, dim_size=count, reduce="sum")
    feature = total / scatter(weight, node, dim_size=count, reduce="sum").clamp(min=1e-12)
    with_actions = copy.copy(state)
    with_actions.x = torch.cat([state.x, feature[:, None]], dim=1)
    return with_actions


class DDPGActor(nn.Module):
    """A deterministic policy: the sigmoid of a head's output for each decision.

    The output is an offset from initial actions, the state's field `proposal` (D,) or one action for all, as in
    `ActorCritic`.

    Args:
        head: Maps a batch of state graphs with D decisions in total to (D, K). Only the first of the K outputs is
            used, so the actors of `gnnrl_lightning.rl.policies.Agent` work too.

    Shapes:
        A batch of graphs to actions (D,) in (0, 1).
    """

    offset: Tensor

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("offset", torch.zeros(()))

    def centre_on(self, action: float) -> None:
        """Set the initial action in (0, 1), that of a head output of zero, for states without proposals."""
        self.offset.fill_(math.log(action / (1 - action)))

    def forward(self, state: StateGraph) -> Tensor:
        """Action of each decision, (D,)."""
        proposal = proposed(state)
        start = self.offset if proposal is None else proposal.logit()
        return (self.head(state)[..., 0] + start).sigmoid()


class QCritic(nn.Module):
    """Value of the actions in a state; each action is an input both of its nodes and of its decision.

        Q(s, a) = w(mean_d f(embedding_d(s, a), a_d))

    Messages carry actions to neighbouring nodes, so Q is not limited to a sum over decisions.

    Args:
        state_dim: Number of node features.
        action_dim: Decisions per graph; used only if `identity` is positive.
        encoder: Graph encoder, as for `DecisionEncoder`; the number of node features includes the action.
        hidden: Size of the hidden layers.
        identity: Size of the identity embeddings of decisions; with 0 the critic supports every network.

    Shapes:
        A batch of B graphs and actions (D,) to (B,).
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int | None,
        encoder: str | Encoder = "MultiStage",
        hidden: int = 64,
        identity: int = 0,
    ) -> None:
        super().__init__()
        self.decisions = DecisionEncoder(state_dim + 1, action_dim, encoder, identity)
        self.each = mlp([self.decisions.out_features + 1, hidden, hidden], last_gain=2**0.5)
        self.whole = mlp([hidden, hidden, 1], last_gain=0.1)

    def forward(self, state: StateGraph, actions: Tensor) -> Tensor:
        """Expected return of taking these actions and following the policy afterwards."""
        embeddings = self.decisions(joined(state, actions))
        each = self.each(torch.cat([embeddings, actions[:, None]], dim=1)).tanh()
        return self.whole(mean_over_decisions(each, state)).squeeze(-1)


CRITICS: dict[str, Callable[..., nn.Module]] = {
    "node": QCritic,
    "identity": partial(QCritic, identity=IDENTITY),
    "graph": partial(QCritic, identity=IDENTITY),
}
"""Name of the actor's head, a key of `HEADS` -> critic of its actions."""


class DDPGAgent(nn.Module):
    """The default policy of DDPG.

    Args:
        state_dim: Number of node features of the state graph.
        action_dim: Decisions per graph, one per channel group; None if graphs differ in their number of decisions.
        head: "identity", "node" or "graph"; see `gnnrl_lightning.rl.policies.Agent`.
        encoder: As for `Agent`.
        actor: Function (state_dim, action_dim) -> head of the actor; None: the head named by `head`.
        critic: Function (state_dim, action_dim) -> critic, a module called with a state and actions; None: `QCritic`.

    Any object with modules `actor(state)`, which returns actions in [0, 1], and `critic(state, actions)` can replace
    this class.

    Raises:
        ValueError: There is no such head, or it needs the same number of decisions in all graphs.
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int | None,
        head: str = "identity",
        encoder: str | Encoder = "MultiStage",
        actor: Head | None = None,
        critic: Head | None = None,
    ) -> None:
        super().__init__()
        one_of("head", head, HEADS)
        make_actor = actor or partial(HEADS[head], encoder=encoder, outputs=1)
        make_critic = critic or partial(CRITICS[head], encoder=encoder)
        self.actor = DDPGActor(make_actor(state_dim, action_dim))
        self.critic = make_critic(state_dim, action_dim)

    def centre_on(self, action: float, spread: float) -> None:
        """Set the initial action, for states without proposals.

        Args:
            action: Action in (0, 1) for a head output of zero.
            spread: Not used, because `DDPG` adds the exploration noise.
        """
        self.actor.centre_on(action)

    @torch.no_grad()
    def mode(self, state: StateGraph) -> Tensor:
        """Deterministic actions (D,) in [0, 1]."""
        return self.actor(state)
