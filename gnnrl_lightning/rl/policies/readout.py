"""Between nodes, decisions and graphs: means and sums over batches of graphs with any numbers of decisions."""

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
    """Sum of what each decision has, (D,) or (D, F), over each graph of a batch: (B,) or (B, F).

    Rows are padded with zeros and summed at once: with many decisions this rounds less than adding one after the
    other, as scatter does.
    """
    return to_dense_batch(values, state.decision_batch, batch_size=state.num_graphs)[0].sum(1)


def mean_over_decisions(values: Tensor, state: StateGraph) -> Tensor:
    """Mean of what each decision has, (D, F), over each graph of a batch: (B, F); 0 where a graph has none."""
    return sum_over_decisions(values, state) / decisions_of(state).clamp(min=1)[:, None]


def to_decisions(values: Tensor, state: StateGraph) -> Tensor:
    """What each graph has, (B, F), at each of its decisions: (D, F); the adjoint of `sum_over_decisions`."""
    counts = decisions_of(state)
    width = int(counts.max()) if len(counts) else 0
    real = torch.arange(width, device=values.device) < counts[:, None]
    return values[:, None].expand(-1, width, -1)[real]


def decisions_of(state: StateGraph) -> Tensor:
    """Number of decisions of each graph of a batch, (B,) int64."""
    return state.decision_batch.bincount(minlength=state.num_graphs)


def one_count(action_dim: int | None, part: str) -> int:
    """The number of decisions of all graphs, for a part that has weights for each of them.

    Raises:
        ValueError: There is no such number.
    """
    if action_dim is None:
        raise ValueError(f"{part} has weights for each decision, and the graphs differ in theirs: use the head 'node'")
    return action_dim


def check_count(state: StateGraph, action_dim: int, part: str) -> None:
    """Refuse graphs with other numbers of decisions than a part has weights for.

    Raises:
        ValueError: There is one.
    """
    counts = decisions_of(state)
    if bool((counts != action_dim).any()):
        found = ", ".join(str(count) for count in sorted(set(counts.tolist())))
        raise ValueError(
            f"{part} is made for graphs of {action_dim} decisions, these have {found}: use the head 'node', which "
            "fits every graph"
        )
