"""Pooling and broadcasting between the nodes, decisions and graphs of a batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.utils import scatter, to_dense_batch

from gnnrl_lightning.rl.state.graph import StateGraph


def graph_mean(values: Tensor, state: StateGraph) -> Tensor:
    """Mean of node values (N, F) over each graph of a batch: (B, F)."""
    return scatter(values, state.batch, dim_size=state.num_graphs, reduce="mean")


def decision_mean(values: Tensor, state: StateGraph) -> Tensor:
    """Weighted mean of node values (N, F) over the nodes of each decision: (D, F)."""
    node, decision = state.decision_index
    weighted = values[node] * state.decision_weight[:, None]
    return scatter(weighted, decision, dim_size=len(state.decision_batch), reduce="sum")


def sum_over_decisions(values: Tensor, state: StateGraph) -> Tensor:
    """Sum of decision values (D,) or (D, F) over each graph of a batch: (B,) or (B, F).

    Rows are padded with zeros and summed in one reduction, which rounds less than the sequential additions of scatter.
    """
    return to_dense_batch(values, state.decision_batch, batch_size=state.num_graphs)[0].sum(1)


def mean_over_decisions(values: Tensor, state: StateGraph) -> Tensor:
    """Mean of decision values (D, F) over each graph of a batch: (B, F); 0 for graphs without decisions."""
    return sum_over_decisions(values, state) / decisions_of(state).clamp(min=1)[:, None]


def to_decisions(values: Tensor, state: StateGraph) -> Tensor:
    """Repeat graph values (B, F) for each decision of the graph: (D, F); the adjoint of `sum_over_decisions`."""
    counts = decisions_of(state)
    width = int(counts.max()) if len(counts) else 0
    real = torch.arange(width, device=values.device) < counts[:, None]
    return values[:, None].expand(-1, width, -1)[real]


def decisions_of(state: StateGraph) -> Tensor:
    """Number of decisions of each graph of a batch, (B,) int64."""
    return state.decision_batch.bincount(minlength=state.num_graphs)


def one_count(action_dim: int | None, part: str) -> int:
    """The common number of decisions, for a module with weights for each decision.

    Raises:
        ValueError: The graphs differ in their number of decisions.
    """
    if action_dim is None:
        raise ValueError(
            f"{part} has weights for each decision, but graphs differ in their number of decisions: use the head 'node'"
        )
    return action_dim


def check_count(state: StateGraph, action_dim: int, part: str) -> None:
    """Check that all graphs have the number of decisions for which a module has weights.

    Raises:
        ValueError: A graph has another number.
    """
    counts = decisions_of(state)
    if bool((counts != action_dim).any()):
        found = ", ".join(str(count) for count in sorted(set(counts.tolist())))
        raise ValueError(
            f"{part} needs graphs with {action_dim} decisions, these have {found}: use the head 'node', which "
            "supports every graph"
        )
