"""The simplified, single-level state graph: one node per operator that mixes channels or joins feature maps."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch_geometric.data import Batch

from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.rl.state.assemble import state_from
from gnnrl_lightning.rl.state.builder import StateBuilder
from gnnrl_lightning.rl.state.graph import StateGraph
from gnnrl_lightning.tracing.topology import KINDS

_KEPT = ("conv", "linear", "attention")


class SimplifiedBuilder:
    """Builds the simplified graph of a network at given widths, see `gnnrl_lightning.rl.state.views.simplified_graph`.

    The nodes are the inputs, convolutions, linear layers and attentions, and operators that join several feature
    maps. All other operators (norms, activations, pooling, reshapes) belong to the node whose map they read. An edge
    means that channels flow from one node to another. There are no motifs: all edges share an empty one, so that every
    encoder accepts the state.

    The fields and features are those of `StateBuilder`. A node has the features of the map that its first stage
    writes, except that costs (columns 5, 6, 7) are summed over its stages, and kinds are those of all its operators.
    Its weight in a group's readout is the sum over its maps.

    Args:
        graph: The traced network.

    Attributes:
        full: Builder of the full state.
        node: (n,) simplified node of each full node.
        head: (m,) first full node of each simplified node.

    Source: GNN-RL (Yu, Mazaheri, Jannesari, ICML 2022), section 4.1, simplified computational graph.
    """

    def __init__(self, graph: ComputationGraph) -> None:
        self.graph, self.num_groups = graph, len(graph.groups)
        self.full = StateBuilder(graph)
        self.state_dim = self.full.state_dim
        self.node, self.head = _assign(self.full)
        self.num_nodes = len(self.head)
        dense = cast(StateGraph, self.full(graph.widths[None], torch.ones(1, 2)))
        source, target = self.node[dense.edge_index]
        pairs: dict[tuple[int, int], int] = {}
        first = []
        for number, pair in enumerate(zip(source.tolist(), target.tolist(), strict=True)):
            if pair[0] != pair[1] and pairs.setdefault(pair, number) == number:
                first.append(number)
        self._edges = torch.tensor(first, dtype=torch.int64)
        self._edge_index = torch.stack([source, target])[:, self._edges]
        kinds = dense.x[:, self.full.kind_columns]
        self._kinds = torch.zeros(self.num_nodes, len(KINDS)).index_add_(0, self.node, kinds).clamp(max=1)
        self._decisions = torch.zeros(self.num_nodes, self.num_groups)
        nodes, groups = dense.decision_index
        self._decisions.index_put_((self.node[nodes], groups), dense.decision_weight, accumulate=True)

    def __call__(self, widths: Tensor, limits: Tensor) -> Batch:
        """Build the graphs of a batch of candidates; arguments and fields as for `StateBuilder`."""
        size = len(widths)
        full = cast(StateGraph, self.full(widths, limits))
        maps = full.x.view(size, -1, self.state_dim)
        x = maps[:, self.head]
        costs = maps[..., self.full.cost_columns]
        summed = torch.zeros(size, self.num_nodes, costs.shape[-1]).index_add_(1, self.node, costs)
        x[..., self.full.cost_columns] = summed.clamp(max=2)
        x[..., self.full.kind_columns] = self._kinds
        edge_attr = full.edge_attr.view(size, -1, full.edge_attr.shape[1])[:, self._edges]
        return state_from(x, self._edge_index, edge_attr, self._decisions)


def _assign(full: StateBuilder) -> tuple[Tensor, Tensor]:
    """Simplified node of each full node, and first full node of each simplified node."""
    place = {feature_map: number for number, feature_map in enumerate(full.maps.tolist())}
    follows = {
        place[stage.output]: place[stage.inputs[0]]
        for stage in full.stages
        if stage.kinds[0] not in _KEPT and len(set(stage.inputs)) == 1
    }
    node: list[int] = []
    head: list[int] = []
    for number in range(full.num_nodes):
        if number in follows:
            node.append(node[follows[number]])
        else:
            node.append(len(head))
            head.append(number)
    return torch.tensor(node), torch.tensor(head)
