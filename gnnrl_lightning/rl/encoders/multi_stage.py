"""m-GNN: embed the motif of each operator, then pass messages over the network, gated by these embeddings."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, MessagePassing
from torch_geometric.utils import degree, scatter

from gnnrl_lightning.rl.state.builder import EDGE_DIM
from gnnrl_lightning.rl.state.graph import StateGraph
from gnnrl_lightning.rl.state.motifs import MOTIF_DIM


def both_ways(edge_index: Tensor, e: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    r"""Edges in both directions, with the factors of their messages.

    :math:`g_{ij} = c_{ij} e_{ij}`, :math:`c_{ij} = (d_i d_j)^{-1/2}`, where d is the number of neighbours, counting
    parallel edges separately. All convolutions over one graph share them.

    Args:
        edge_index: (2, E).
        e: (E, F) embedding of each edge's operator.
        nodes: Number of nodes.

    Returns:
        Edges (2, 2 E) and factors (2 E, F).
    """
    both = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    d = degree(both[1], nodes, dtype=e.dtype).clamp(min=1)
    c = (d[edge_index[0]] * d[edge_index[1]]).rsqrt()
    return both, (c[:, None] * e).repeat(2, 1)


class MotifConv(MessagePassing):
    r"""Graph convolution whose messages are gated by the embedding of the edge's operator.

    .. math::
        h_i' = W \sum_{j \in N(i)} h_j \odot g_{ij}

    With the edges and factors of `both_ways` it is :math:`h_i' = \sum_j c_{ij} W (h_j \odot e_{ij})`.

    Args:
        in_features: Size of h and of g.
        out_features: Size of h'.

    Shapes:
        h (N, in_features), edge_index (2, E), g (E, in_features) to (N, out_features).

    Source: GNN-RL (ICML 2022), equations 3 and 4.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(aggr="add")
        self.in_features, self.out_features = in_features, out_features
        self.linear = nn.Linear(in_features, out_features, bias=False)

    def forward(self, h: Tensor, edge_index: Tensor, g: Tensor) -> Tensor:
        """Apply the convolution; see the class for the formula and shapes."""
        # W is linear, so it is applied to the sums of messages: N products instead of E.
        return self.linear(self.propagate(edge_index, h=h, g=g, size=(len(h), len(h))))

    def message(self, h_j: Tensor, g: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """h_j * g_ij."""
        return h_j * g

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_features}, {self.out_features})"


class MotifEncoder(nn.Module):
    """Stage 1: embeds each level-1 graph with a GCN, followed by mean pooling over its nodes.

    The motifs are weighted quotient graphs (`gnnrl_lightning.rl.state.motifs.motif`); the result equals that of the
    same network on the expanded graphs.

    Args:
        motif_dim: Number of node features of the motifs.
        hidden: Size of the embedding.
        layers: Number of graph convolutions.
    """

    def __init__(self, motif_dim: int, hidden: int, layers: int = 2) -> None:
        super().__init__()
        sizes = [motif_dim] + [hidden] * layers
        self.convolutions = nn.ModuleList(GCNConv(i, o) for i, o in pairwise(sizes))

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor, size: Tensor, motif: Tensor) -> Tensor:
        """Embeddings of the motifs.

        Args:
            x: (N, motif_dim) features of the nodes; each node stands for a class of equivalent nodes.
            edge_index: (2, E).
            weight: (E,) number of neighbours in the source class per node of the target class.
            size: (N,) number of nodes in each class.
            motif: (N,) index of the motif of each class.

        Returns:
            (motifs, hidden).
        """
        for convolution in self.convolutions:
            x = convolution(x, edge_index, weight).tanh()
        return scatter(x * size[:, None], motif, reduce="sum") / scatter(size, motif, reduce="sum")[:, None]


class MultiStage(nn.Module):
    """The multi-stage graph encoder (m-GNN): first the motifs, then the network.

    The edge embedding e_ij of `MotifConv` is the motif's embedding plus a linear map of the edge's own features (its
    current share of the costs); the convolutions are residual. There is no dropout or batch normalisation, because the
    policy must be the same function in rollouts and in training.

    Args:
        state_dim: Number of node features of the state graph.
        hidden: Size of the embeddings.
        layers: Number of convolutions over the network.
        motif_layers: Number of convolutions over the motifs.
        edge_dim: Number of edge features of the state graph.
        motif_dim: Number of node features of the motifs.

    Shapes:
        A `gnnrl_lightning.rl.state.graph.StateGraph` to (nodes, hidden).

    Source: GNN-RL (ICML 2022), section 4.2.
    """

    def __init__(
        self,
        state_dim: int,
        hidden: int = 32,
        layers: int = 3,
        motif_layers: int = 2,
        edge_dim: int = EDGE_DIM,
        motif_dim: int = MOTIF_DIM,
    ) -> None:
        super().__init__()
        self.out_features = hidden
        self.motifs = MotifEncoder(motif_dim, hidden, motif_layers)
        self.edges = nn.Linear(edge_dim, hidden)
        self.nodes = nn.Linear(state_dim, hidden)
        self.convolutions = nn.ModuleList(MotifConv(hidden, hidden) for _ in range(layers))

    def forward(self, state: StateGraph) -> Tensor:
        """Node embeddings (N, hidden)."""
        motifs = self.motifs(
            state.motif_x, state.motif_edge_index, state.motif_weight, state.motif_size, state.motif_batch
        )
        e = motifs[state.edge_motif] + self.edges(state.edge_attr)
        h = self.nodes(state.x).tanh()
        edges, g = both_ways(state.edge_index, e, len(h))
        for convolution in self.convolutions:
            h = h + convolution(h, edges, g).tanh()
        return h
