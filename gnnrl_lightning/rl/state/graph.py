"""The batch of state graphs that environments make and that encoders, heads and critics read."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class StateGraph(Protocol):
    """A batch of B disjoint graphs with N nodes, E edges and D decisions in all.

    Whatever has the fields can serve, usually a `torch_geometric.data.Batch`. Graphs may differ in nodes, edges and
    decisions. The encoders `GCN` and `GAT` read nodes and edges alone; heads and critics read the decisions, too.

    Attributes:
        x: (N, F) features of nodes.
        edge_index: (2, E) source and target of each edge.
        batch: (N,) the graph of each node, in increasing order.
        ptr: (B + 1,) the first node of each graph, and N.
        num_graphs: B.
        edge_attr: (E, K) features of edges.
        edge_motif: (E,) the motif of each edge.
        motif_x: (n, M) features of the nodes of the motifs, end to end.
        motif_edge_index: (2, k) their edges.
        motif_weight: (k,) weights of their edges.
        motif_size: (n,) nodes that each of their nodes stands for.
        motif_batch: (n,) the motif of each of their nodes.
        decision_index: (2, I) pairs of a node and a decision that it is part of.
        decision_weight: (I,) their weights, which sum to one for each decision.
        decision_batch: (D,) the graph of each decision, in increasing order.

    A state may also have `proposal` (D,), actions from which a policy starts, and `proposal_step` (D,), what one
    channel is as an action.
    """

    x: Tensor
    edge_index: Tensor
    batch: Tensor
    ptr: Tensor
    edge_attr: Tensor
    edge_motif: Tensor
    motif_x: Tensor
    motif_edge_index: Tensor
    motif_weight: Tensor
    motif_size: Tensor
    motif_batch: Tensor
    decision_index: Tensor
    decision_weight: Tensor
    decision_batch: Tensor

    @property
    def num_graphs(self) -> int:
        """Number of graphs B."""
        ...
