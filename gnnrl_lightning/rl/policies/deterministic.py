"""Deterministic policies over state graphs and critics of actions, for DDPG."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from gnnrl_lightning.rl.encoders import Encoder
from gnnrl_lightning.rl.policies.actor_critic import (
    DecisionEncoder,
    GraphActor,
    Head,
    NodeActor,
    mlp,
    proposed,
)
from gnnrl_lightning.rl.policies.readout import mean_over_decisions
from gnnrl_lightning.rl.state.graph import StateGraph


def joined(state: StateGraph, actions: Tensor) -> StateGraph:
    """The state with one more node feature: the action of the decisions on the node.

    Where several decisions have parts of a node it is their weighted mean, where none has any it is 0.

    Args:
        state: Batch of B state graphs.
        actions: (D,) in [0, 1].

    Returns:
        A batch that shares all else with the state.
    """
    node, decision = state.decision_index
    count, weight = len(state.x), state.decision_weight
    total = scatter(weight * actions[decision], node, dim_size=count, reduce="sum")
    feature = total / scatter(weight, node, dim_size=count, reduce="sum").clamp(min=1e-12)
    with_actions = copy.copy(state)
    with_actions.x = torch.cat([state.x, feature[:, None]], dim=1)
    return with_actions


class DDPGActor(nn.Module):
    """A deterministic policy: the logistic function of what a head puts out for each decision.

    It is relative to a start, the state's field `proposal` (D,) or one action for all, as in `ActorCritic`.

    Args:
        head: Maps a batch of state graphs with D decisions in all to (D, K); the first of the K numbers
            counts, so the actors of `gnnrl_lightning.rl.policies.Agent` serve too.

    Shapes:
        A batch of graphs to actions (D,) in (0, 1).
    """

    offset: Tensor

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("offset", torch.zeros(()))

    def centre_on(self, action: float) -> None:
        """Make the head's output relative to a start: zero means this action in (0, 1), or the state's proposal."""
        self.offset.fill_(math.log(action / (1 - action)))

    def forward(self, state: StateGraph) -> Tensor:
        """Action of each decision."""
        proposal = proposed(state)
        start = self.offset if proposal is None else proposal.logit()
        return (self.head(state)[..., 0] + start).sigmoid()


class QCritic(nn.Module):
    """Value of the actions in a state; it sees each action at the nodes that it concerns and at its decision.

        Q(s, a) = w(mean_d f(embedding_d(s, a), a_d))

    Messages carry actions to their neighbours, so Q need not be a sum over decisions.

    Args:
        state_dim: Node features.
        action_dim: Decisions in a graph; not used where there are no codes.
        encoder: Makes the graph encoder for a number of node features, the action among them.
        hidden: Size of the hidden layers.
        identity: Size of the codes of decisions; 0 fits every network.

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


# By head: what makes the actor's head and the critic.
PARTS: dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module]]] = {
    "node": (NodeActor, QCritic),
    "identity": (partial(NodeActor, identity=32), partial(QCritic, identity=32)),
    "graph": (GraphActor, partial(QCritic, identity=32)),
}


class DDPGAgent(nn.Module):
    """The default policy of DDPG for a graph with so many node features and so many channel groups to prune.

    Args:
        state_dim: Features of each node of the state graph.
        action_dim: Decisions in a graph: channel groups to prune; None where graphs have different numbers of them.
        head: "identity", "node" or "graph"; see `gnnrl_lightning.rl.policies.Agent`.
        encoder: As of `Agent`.
        actor: Makes another head of the actor for (state_dim, action_dim).
        critic: Makes another critic for (state_dim, action_dim): called with a state and actions.

    Whatever has `actor(state)`, actions in [0, 1], and `critic(state, actions)`, as modules, can take its
    place.

    Raises:
        ValueError: There is no such head, or it needs one number of decisions for all graphs.
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
        if head not in PARTS:
            raise ValueError(f"head is {head!r}, expected one of {', '.join(map(repr, PARTS))}")
        make_head, make_critic = PARTS[head]
        self.actor = DDPGActor(
            actor(state_dim, action_dim) if actor else make_head(state_dim, action_dim, encoder=encoder, outputs=1)
        )
        self.critic = critic(state_dim, action_dim) if critic else make_critic(state_dim, action_dim, encoder=encoder)

    def centre_on(self, action: float, spread: float) -> None:
        """Make the actor's output relative to a start: zero means this action, or the state's proposal.

        Args:
            action: In (0, 1).
            spread: Not used: exploring is left to who plays.
        """
        self.actor.centre_on(action)

    @torch.no_grad()
    def mode(self, state: StateGraph) -> Tensor:
        """Actions (D,) of the policy."""
        return self.actor(state)

    def squash(self, action: Tensor) -> Tensor:
        """The action itself, which is in [0, 1] already."""
        return action
