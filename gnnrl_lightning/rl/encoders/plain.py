"""Single-level encoders: standard graph convolutions that ignore the motifs."""

from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv
from torch_geometric.utils import to_undirected

from gnnrl_lightning.rl.state.graph import StateGraph


class GCN(nn.Module):
    """Graph convolutions over node features only; messages pass along edges in both directions.

    Args:
        state_dim: Number of node features.
        hidden: Size of the embeddings.
        layers: Number of convolutions.

    Shapes:
        A graph batch with `x` (N, state_dim) and `edge_index` (2, E) to (N, hidden).

    Source: Kipf and Welling, Semi-Supervised Classification with Graph Convolutional Networks, 2017.
    """

    def __init__(self, state_dim: int, hidden: int = 32, layers: int = 3) -> None:
        super().__init__()
        self.out_features = hidden
        self.nodes = nn.Linear(state_dim, hidden)
        self.convolutions = nn.ModuleList(self._convolution(hidden) for _ in range(layers))

    def _convolution(self, hidden: int) -> nn.Module:
        return GCNConv(hidden, hidden)

    def forward(self, state: StateGraph) -> Tensor:
        """Node embeddings (N, hidden)."""
        edge_index = to_undirected(state.edge_index, num_nodes=len(state.x))
        h = self.nodes(state.x).tanh()
        for convolution in self.convolutions:
            h = h + convolution(h, edge_index).tanh()
        return h


class GAT(GCN):
    """Graph attention over node features only; messages pass along edges in both directions.

    Args:
        state_dim: Number of node features.
        hidden: Size of the embeddings, a multiple of heads.
        layers: Number of convolutions.
        heads: Number of attention heads.

    Shapes:
        As for `GCN`.

    Source: Velickovic et al., Graph Attention Networks, 2018.
    """

    def __init__(self, state_dim: int, hidden: int = 32, layers: int = 3, heads: int = 4) -> None:
        if hidden % heads:
            raise ValueError(f"hidden is {hidden} with {heads} heads: expected a multiple of the number of heads")
        self._heads = heads
        super().__init__(state_dim, hidden, layers)

    def _convolution(self, hidden: int) -> nn.Module:
        return GATConv(hidden, hidden // self._heads, heads=self._heads)
