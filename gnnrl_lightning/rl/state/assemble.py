"""State batches, the input of encoders and policies, for graphs without a traced network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch

from gnnrl_lightning.rl.state.builder import EDGE_DIM, tile
from gnnrl_lightning.rl.state.motifs import MOTIF_DIM, packed

# Field -> the count by which its entries are shifted when graphs are joined; None: not shifted.
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
    "proposal_odds": None,
}
_PROPOSALS = ("proposal", "proposal_step", "proposal_odds")
# Fields that are concatenated along their last dimension.
_LAST = {"edge_index": 1, "motif_edge_index": 1, "decision_index": 1}


def state_from(
    x: Tensor,
    edge_index: Tensor,
    edge_attr: Tensor | None = None,
    decisions: Tensor | None = None,
    motifs: Sequence[Any] | None = None,
) -> Batch:
    """Build a state batch from your own graph, with every field of `StateGraph`.

    All encoders, heads and critics of this package accept it. To combine graphs of different sizes, build them
    separately and call `join_states`.

    Args:
        x: (N, F) node features of one graph, or (B, N, F) of B graphs with the same edges.
        edge_index: (2, E) source and target of each edge. Encoders pass messages in both directions.
        edge_attr: (E, D) or (B, E, D) edge features; if D is not EDGE_DIM, create the encoder with
            `MultiStage(F, edge_dim=D)`. Zeros (E, EDGE_DIM) by default.
        decisions: (N, A) non-negative weights of each node in each of the A decisions. Columns are scaled to sum to
            one; a decision whose column is zero sees only the graph as a whole. One decision per node by default;
            `torch.eye(N)[:, [2, 5]]` decides for nodes 2 and 5.
        motifs: E level-1 graphs, one per edge; pass the same object for equal motifs. Each has `x` (n, MOTIF_DIM, or
            another size that is passed to the encoder) and `edge_index` (2, e), and quotient graphs also have
            `weight` (e,) and `members` (n,), as in `Data(**motif(...))`. By default all edges share a one-node motif.

    Returns:
        A batch of B graphs (B = 1 if x has two dimensions) on the device of x.

    Raises:
        ValueError: Shapes are inconsistent, an index is out of range, or a weight is negative.
    """
    if x.ndim not in (2, 3):
        raise ValueError(f"x has shape {tuple(x.shape)}: expected (N, F), or (B, N, F) for B graphs")
    x = x if x.ndim == 3 else x[None]
    size, nodes, _ = x.shape
    edges = _checked_edges(edge_index, nodes)
    if edge_attr is None:
        edge_attr = x.new_zeros(edges, EDGE_DIM)
    if edge_attr.ndim not in (2, 3) or edge_attr.shape[-2] != edges or edge_attr.shape[:-2] not in ((), (size,)):
        raise ValueError(f"edge_attr has shape {tuple(edge_attr.shape)}: expected ({edges}, D) or ({size}, {edges}, D)")
    weights = torch.eye(nodes, device=x.device) if decisions is None else decisions
    if weights.ndim != 2 or len(weights) != nodes or bool((weights < 0).any()):
        raise ValueError(f"decisions has shape {tuple(weights.shape)}: expected ({nodes}, A) weights of at least 0")
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
    """Concatenate batches of graphs into one batch (their disjoint union).

    Args:
        states: Batches from `state_from`, a state builder or an environment, with the same fields and numbers of
            features. Their graphs may differ in nodes, edges and decisions.

    Raises:
        ValueError: Some batches have a field that others lack.
    """
    counts = {name: 0 for name in ("nodes", "graphs", "motifs", "classes", "decisions")}
    names = [name for name in _SHIFTS if any(name in state for state in states)]
    for name in names:
        if not all(name in state for state in states):
            raise ValueError(f"some states have the field {name} and others lack it: expected it in all or in none")
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
    """Permute the graphs of a batch, with their nodes, edges and decisions.

    Args:
        state: A batch of B graphs from `join_states`, `state_from` or a state builder.
        order: (B,) int64 new position of each graph.

    Returns:
        A new batch; the motifs, which all graphs share, are unchanged.
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
    """Index of each graph's first node, and the number of nodes: (graphs + 1,)."""
    return torch.cat([batch.new_zeros(1), batch.bincount(minlength=graphs).cumsum(0)])


def _checked_edges(edge_index: Tensor, nodes: int) -> int:
    if edge_index.ndim != 2 or len(edge_index) != 2 or edge_index.dtype != torch.int64:
        raise ValueError(f"edge_index is {edge_index.dtype} {tuple(edge_index.shape)}: expected int64 (2, E)")
    if edge_index.numel() and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < nodes:
        raise ValueError(f"edge_index has node {int(edge_index.max())} or below 0: expected 0 to {nodes - 1}")
    return edge_index.shape[1]


def _motif_fields(motifs: Sequence[Any] | None, edges: int, like: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Motif index of each edge, and the level-1 fields."""
    if motifs is None:
        edge = torch.zeros(2, 0, dtype=torch.int64, device=like.device)
        distinct, numbers = [{"x": like.new_ones(1, MOTIF_DIM), "edge_index": edge}], [0] * edges
    elif len(motifs) != edges or not edges:
        raise ValueError(f"motifs has {len(motifs)} graphs: expected one for each of the {edges} edges, or None")
    else:
        distinct = list({id(item): item for item in motifs}.values())
        number = {id(item): n for n, item in enumerate(distinct)}
        numbers = [number[id(item)] for item in motifs]
    level1 = {name: tensor.to(like.device) for name, tensor in packed(distinct).items()}
    return torch.tensor(numbers, dtype=torch.int64, device=like.device), level1
