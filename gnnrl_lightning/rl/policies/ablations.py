"""Ablations of the default policy's input, to measure the contribution of the graph."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import accumulate

import torch
from torch import Tensor, nn

from gnnrl_lightning.checks import one_of
from gnnrl_lightning.rl.encoders import Encoder
from gnnrl_lightning.rl.policies.actor_critic import Agent
from gnnrl_lightning.rl.policies.distributions import UnitDistribution
from gnnrl_lightning.rl.policies.log_keep import LogKeep
from gnnrl_lightning.rl.state.graph import StateGraph


def no_messages(state: StateGraph) -> StateGraph:
    """The state without edges: no messages pass between nodes."""
    state = copy.copy(state)
    state.edge_index = state.edge_index[:, :0]
    state.edge_attr, state.edge_motif = state.edge_attr[:0], state.edge_motif[:0]
    return state


def shuffled_edges(state: StateGraph) -> StateGraph:
    """The state with the targets of its edges permuted at random within each graph.

    Graphs with equally many edges use the same permutation. The edges of a graph must be contiguous, as in the states
    from state builders and `join_states`.
    """
    counts = state.batch[state.edge_index[0]].bincount(minlength=state.num_graphs).tolist()
    orders = {count: torch.randperm(count, generator=torch.Generator().manual_seed(0)) for count in set(counts)}
    starts = accumulate([0, *counts[:-1]])
    order = torch.cat([orders[count] + start for count, start in zip(counts, starts, strict=True)])
    state = copy.copy(state)
    state.edge_index = torch.stack([state.edge_index[0], state.edge_index[1][order.to(state.edge_index.device)]])
    return state


def constant_state(state: StateGraph) -> StateGraph:
    """The state with all features set to zero: only the topology is left, without widths and budget."""
    state = copy.copy(state)
    state.x, state.edge_attr = torch.zeros_like(state.x), torch.zeros_like(state.edge_attr)
    return state


ABLATIONS: dict[str, Callable[[StateGraph], StateGraph]] = {
    "no_messages": no_messages,
    "shuffled_edges": shuffled_edges,
    "constant_state": constant_state,
}
"""Name -> function from a state to the ablated state; the original state is not modified."""


class _Through(nn.Module):
    """An actor or critic with an ablated input."""

    def __init__(self, module: nn.Module, change: Callable[[StateGraph], StateGraph]) -> None:
        super().__init__()
        self.module, self.change = module, change

    def forward(self, state: StateGraph) -> Tensor:
        return self.module(self.change(state))


class AblatedAgent(Agent):
    """The default policy with an ablated input for both actor and critic.

    Args:
        state_dim: Number of node features of the state graph.
        action_dim: Decisions per graph; None if graphs differ in their number of decisions.
        ablation: "no_messages", "shuffled_edges" or "constant_state".
        head: As for `Agent`.
        encoder: As for `Agent`.
        distribution: As for `Agent`.

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
        distribution: type[UnitDistribution] = LogKeep,
    ) -> None:
        one_of("ablation", ablation, ABLATIONS)
        super().__init__(state_dim, action_dim, head, encoder, distribution)
        self.ablation = ablation
        self.actor = _Through(self.actor, ABLATIONS[ablation])
        self.critic = _Through(self.critic, ABLATIONS[ablation])

    @property
    def description(self) -> dict[str, str]:
        """The description of `Agent`, and the ablation."""
        return super().description | {"ablation": self.ablation}
