"""State batches of any graph: what encoders and policies read, without a traced network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch

from gnnrl_lightning.rl.state.builder import EDGE_DIM, tile
from gnnrl_lightning.rl.state.motifs import MOTIF_DIM

# Field -> the count that its entries are shifted by when graphs are put side by side; None: they are not.
_SHIFTS = {
    "x": None,
    "edge_index": "nodes",
    "edge_attr": None,
    "batch": "graphs",
    "edge_motif": "motifs",
    "motif_x": None,
    "motif_edge_index": "classes",
    "motif_weight": None,
    "motif_size": None,
    "motif_batch": "motifs",
    "decision_weight": None,
    "decision_batch": "graphs",
    "proposal": None,
    "proposal_step": None,
}
_PROPOSALS = ("proposal", "proposal_step")
# Fields that are joined along their last dimension.
_LAST = {"edge_index": 1, "motif_edge_index": 1, "decision_index": 1}


def state_from(
    x: Tensor,
    edge_index: Tensor,
    edge_attr: Tensor | None = None,
    decisions: Tensor | None = None,
    motifs: Sequence[Any] | None = None,
) -> Batch:
    """A state batch of a graph of your own, with every field of the table of `StateBuilder`.

    All encoders, heads and critics of this package take it. Graphs of different shape are made one by one and
    put together by `join_states`.

    Args:
        x: (N, F) node features of one graph, or (B, N, F) of B graphs with the same edges.
        edge_index: (2, E) source and target of each edge. Encoders pass messages both ways.
        edge_attr: (E, D) or (B, E, D) edge features; for D other than EDGE_DIM make the encoder with
            `MultiStage(F, edge_dim=D)`. Zeros (E, EDGE_DIM) by default.
        decisions: (N, A) weights, at least 0, of each node in each of the A decisions; columns are scaled to sum
            to one, and those of zeros see the graph as a whole only. One decision for each node by default;
            `torch.eye(N)[:, [2, 5]]` decides for nodes 2 and 5.
        motifs: The level-1 graph of each edge, E of them, of which equal ones should be the same object: with
            `x` (n, MOTIF_DIM or another number for all, which the encoder is then told) and `edge_index` (2, e),
            and where it is a quotient `weight` (e,) and `members` (n,), as `Data(**motif(...))`. By default all
            edges share a motif of one node.

    Returns:
        A batch of B graphs (1 for x of two dimensions) on the device of x.

    Raises:
        ValueError: Shapes do not fit, an index is out of range, or a weight is negative.
    """
    if x.ndim not in (2, 3):
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (N, F), or (B, N, F) for B graphs")
    x = x if x.ndim == 3 else x[None]
    size, nodes, _ = x.shape
    edges = _checked_edges(edge_index, nodes)
    if edge_attr is None:
        edge_attr = x.new_zeros(edges, EDGE_DIM)
    if edge_attr.ndim not in (2, 3) or edge_attr.shape[-2] != edges or edge_attr.shape[:-2] not in ((), (size,)):
        raise ValueError(f"edge_attr has shape {tuple(edge_attr.shape)}, expected ({edges}, D) or ({size}, {edges}, D)")
    weights = torch.eye(nodes, device=x.device) if decisions is None else decisions
    if weights.ndim != 2 or len(weights) != nodes or bool((weights < 0).any()):
        raise ValueError(f"decisions has shape {tuple(weights.shape)}, expected ({nodes}, A) weights of at least 0")
    weights = weights.to(x.dtype) / weights.sum(0).clamp(min=1e-12)
    chosen = weights.nonzero().T
    graphs = torch.arange(size, device=x.device)
    edge_motif, level1 = _motif_fields(motifs, edges, x)
    return Batch(
        x=x.flatten(0, 1),
        edge_index=tile(edge_index, graphs * nodes),
        edge_attr=edge_attr.expand(size, *edge_attr.shape[-2:]).flatten(0, 1),
        batch=graphs.repeat_interleave(nodes),
        ptr=torch.arange(size + 1, device=x.device) * nodes,
        edge_motif=edge_motif.repeat(size),
        **level1,
        decision_index=torch.stack([tile(chosen[0], graphs * nodes), tile(chosen[1], graphs * weights.shape[1])]),
        decision_weight=weights[chosen[0], chosen[1]].repeat(size),
        decision_batch=graphs.repeat_interleave(weights.shape[1]),
    )


def join_states(states: Sequence[Any]) -> Batch:
    """One batch of the graphs of several: their disjoint union, in order.

    Args:
        states: Batches of `state_from`, a state builder or an environment, with the same fields and equally many
            features. Their graphs may differ in nodes, edges and decisions.

    Raises:
        ValueError: Some have a field that others have not.
    """
    counts = {name: 0 for name in ("nodes", "graphs", "motifs", "classes", "decisions")}
    names = [name for name in _SHIFTS if any(name in state for state in states)]
    for name in names:
        if not all(name in state for state in states):
            raise ValueError(f"some states have the field {name}, and others have none: expected it in all or in none")
    parts: dict[str, list[Tensor]] = {name: [] for name in (*names, "decision_index")}
    for state in states:
        for name in names:
            shift = _SHIFTS[name]
            parts[name].append(state[name] + counts[shift] if shift else state[name])
        offset = state.decision_index.new_tensor([[counts["nodes"]], [counts["decisions"]]])
        parts["decision_index"].append(state.decision_index + offset)
        counts["nodes"] += len(state.x)
        counts["graphs"] += state.num_graphs
        counts["decisions"] += len(state.decision_batch)
        if "motif_x" in state:
            counts["motifs"] += int(state.motif_batch.max()) + 1
            counts["classes"] += len(state.motif_x)
    joined = {name: torch.cat(tensors, dim=_LAST.get(name, 0)) for name, tensors in parts.items()}
    return Batch(**joined, ptr=_pointers(joined["batch"], counts["graphs"]))


def reorder_graphs(state: Any, order: Tensor) -> Batch:
    """The same batch with its graphs, and their nodes, edges and decisions, in another order.

    Args:
        state: A batch of B graphs, of `join_states`, `state_from` or a state builder.
        order: (B,) int64, the new place of each graph, a permutation.

    Returns:
        A new batch; motifs are shared by all graphs and stay as they are.
    """
    graph_of_node, graph_of_decision = order[state.batch], order[state.decision_batch]
    nodes, decisions = graph_of_node.argsort(stable=True), graph_of_decision.argsort(stable=True)
    node_place, decision_place = nodes.argsort(), decisions.argsort()
    edges = graph_of_node[state.edge_index[0]].argsort(stable=True)
    pairs = graph_of_node[state.decision_index[0]].argsort(stable=True)
    sorted_by = {"x": nodes, "edge_attr": edges, "edge_motif": edges, "decision_weight": pairs}
    sorted_by |= dict.fromkeys(_PROPOSALS, decisions)
    moved = {name: state[name][rows] for name, rows in sorted_by.items() if name in state}
    moved |= {
        "batch": graph_of_node[nodes],
        "ptr": _pointers(graph_of_node, len(order)),
        "edge_index": node_place[state.edge_index[:, edges]],
        "decision_index": torch.stack(
            [node_place[state.decision_index[0, pairs]], decision_place[state.decision_index[1, pairs]]]
        ),
        "decision_batch": graph_of_decision[decisions],
    }
    return Batch(**{name: moved.get(name, value) for name, value in state.items()})


def _pointers(batch: Tensor, graphs: int) -> Tensor:
    """Where the nodes of each graph start, (graphs + 1,)."""
    return torch.cat([batch.new_zeros(1), batch.bincount(minlength=graphs).cumsum(0)])


def _checked_edges(edge_index: Tensor, nodes: int) -> int:
    if edge_index.ndim != 2 or len(edge_index) != 2 or edge_index.dtype != torch.int64:
        raise ValueError(f"edge_index is {edge_index.dtype} {tuple(edge_index.shape)}, expected int64 (2, E)")
    if edge_index.numel() and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < nodes:
        raise ValueError(f"edge_index has node {int(edge_index.max())} or below 0, expected 0 to {nodes - 1}")
    return edge_index.shape[1]


def _motif_fields(motifs: Sequence[Any] | None, edges: int, like: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The motif of each edge, and the level-1 fields."""
    if motifs is None:
        return torch.zeros(edges, dtype=torch.int64, device=like.device), {
            "motif_x": like.new_ones(1, MOTIF_DIM),
            "motif_edge_index": torch.zeros(2, 0, dtype=torch.int64, device=like.device),
            "motif_weight": like.new_zeros(0),
            "motif_size": like.new_ones(1),
            "motif_batch": torch.zeros(1, dtype=torch.int64, device=like.device),
        }
    if len(motifs) != edges or not edges:
        raise ValueError(f"motifs has {len(motifs)} graphs, expected one for each of the {edges} edges, or None")
    distinct = list({id(item): item for item in motifs}.values())
    number = {id(item): n for n, item in enumerate(distinct)}
    sizes = torch.tensor([len(item.x) for item in distinct])
    starts = (sizes.cumsum(0) - sizes).tolist()

    def or_ones(item: Any, name: str, count: int) -> Tensor:
        return item[name] if name in item else like.new_ones(count)

    level1 = {
        "motif_x": torch.cat([item.x for item in distinct]),
        "motif_edge_index": torch.cat([item.edge_index + s for item, s in zip(distinct, starts, strict=True)], dim=1),
        "motif_weight": torch.cat([or_ones(item, "weight", item.edge_index.shape[1]) for item in distinct]),
        "motif_size": torch.cat([or_ones(item, "members", len(item.x)) for item in distinct]),
        "motif_batch": torch.arange(len(distinct)).repeat_interleave(sizes),
    }
    edge_motif = torch.tensor([number[id(item)] for item in motifs], device=like.device)
    return edge_motif, {name: tensor.to(like.device) for name, tensor in level1.items()}
