"""The default policy with a part of what it sees taken away: does the graph earn its place?"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import accumulate

import torch
from torch import Tensor, nn

from gnnrl_lightning.rl.encoders import Encoder
from gnnrl_lightning.rl.policies.actor_critic import Agent
from gnnrl_lightning.rl.policies.distributions import Beta, UnitDistribution
from gnnrl_lightning.rl.state.graph import StateGraph


def no_messages(state: StateGraph) -> StateGraph:
    """The state without its edges: every node sees itself alone."""
    state = copy.copy(state)
    state.edge_index = state.edge_index[:, :0]
    state.edge_attr, state.edge_motif = state.edge_attr[:0], state.edge_motif[:0]
    return state


def shuffled_edges(state: StateGraph) -> StateGraph:
    """The state with the targets of its edges exchanged at random within each graph, alike in graphs of equal size.

    The edges of a graph are next to one another, as state builders and `join_states` leave them.
    """
    counts = state.batch[state.edge_index[0]].bincount(minlength=state.num_graphs).tolist()
    orders = {count: torch.randperm(count, generator=torch.Generator().manual_seed(0)) for count in set(counts)}
    starts = accumulate([0, *counts[:-1]])
    order = torch.cat([orders[count] + start for count, start in zip(counts, starts, strict=True)])
    state = copy.copy(state)
    state.edge_index = torch.stack([state.edge_index[0], state.edge_index[1][order.to(state.edge_index.device)]])
    return state


def constant_state(state: StateGraph) -> StateGraph:
    """The state with zeros for all features: neither widths nor budget, only the topology is seen."""
    state = copy.copy(state)
    state.x, state.edge_attr = torch.zeros_like(state.x), torch.zeros_like(state.edge_attr)
    return state


ABLATIONS: dict[str, Callable[[StateGraph], StateGraph]] = {
    "no_messages": no_messages,
    "shuffled_edges": shuffled_edges,
    "constant_state": constant_state,
}
"""Name -> what is done to a state before the policy sees it; the state itself is left as it is."""


class _Through(nn.Module):
    """An actor or critic that sees a changed state."""

    def __init__(self, module: nn.Module, change: Callable[[StateGraph], StateGraph]) -> None:
        super().__init__()
        self.module, self.change = module, change

    def forward(self, state: StateGraph) -> Tensor:
        return self.module(self.change(state))


class AblatedAgent(Agent):
    """The default policy, actor and critic alike, without a part of what it sees.

    Args:
        state_dim: Features of each node of the state graph.
        action_dim: Decisions in a graph; None where graphs have different numbers of them.
        ablation: What is taken away: "no_messages", "shuffled_edges" or "constant_state".
        head: As of `Agent`.
        encoder: As of `Agent`.
        distribution: As of `Agent`.

    Raises:
        ValueError: There is no such ablation, or head.
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int | None,
        ablation: str,
        head: str = "identity",
        encoder: str | Encoder = "MultiStage",
        distribution: type[UnitDistribution] = Beta,
    ) -> None:
        if ablation not in ABLATIONS:
            raise ValueError(f"ablation is {ablation!r}, expected one of {', '.join(map(repr, ABLATIONS))}")
        super().__init__(state_dim, action_dim, head, encoder, distribution)
        self.ablation = ablation
        self.actor = _Through(self.actor, ABLATIONS[ablation])
        self.critic = _Through(self.critic, ABLATIONS[ablation])

    @property
    def description(self) -> dict[str, str]:
        """Also what is taken away."""
        return super().description | {"ablation": self.ablation}
