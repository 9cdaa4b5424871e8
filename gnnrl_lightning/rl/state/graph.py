"""The interface of state batches, which environments build and encoders, heads and critics read."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class StateGraph(Protocol):
    """A batch of B disjoint graphs with N nodes, E edges and D decisions in total.

    Any object with these fields works, usually a `torch_geometric.data.Batch`. Graphs may differ in nodes, edges and
    decisions. The encoders `GCN` and `GAT` read only nodes and edges, `MultiStage` also `edge_attr` and the motifs;
    heads and critics also read the decisions, and `ActorCritic` the proposals.

    Attributes:
        x: (N, F) node features.
        edge_index: (2, E) source and target of each edge.
        batch: (N,) graph of each node, in increasing order.
        ptr: (B + 1,) first node of each graph, and N.
        num_graphs: B.
        edge_attr: (E, K) edge features.
        edge_motif: (E,) motif of each edge.
        motif_x: (n, M) node features of all motifs, concatenated.
        motif_edge_index: (2, k) motif edges.
        motif_weight: (k,) weights of the motif edges.
        motif_size: (n,) number of nodes that each motif node stands for.
        motif_batch: (n,) motif of each motif node.
        decision_index: (2, I) pairs of a node and a decision that involves it.
        decision_weight: (I,) weights of these pairs, which sum to one for each decision.
        decision_batch: (D,) graph of each decision, in increasing order.

    A state may also have `proposal` (D,), initial actions, and `proposal_step` (D,), the change of the action that
    removes one channel. If the budget lets whole groups go, it also has `proposal_odds` (D,), initial log-odds of
    removing each, `gnnrl_lightning.rl.policies.log_keep.NEVER` where the group may not go.
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
