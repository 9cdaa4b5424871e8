"""The hierarchical state graph: what the policy sees of a network that is being pruned."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch

from gnnrl_lightning.graph.motifs import geometry, motif
from gnnrl_lightning.graph.topology import KINDS

EDGE_DIM = len(KINDS) + 7
NODE_DIM = 11 + len(KINDS) + 7


class StateBuilder:
    """Builds the state graph of a network at given widths, by tensor updates only.

    Level 2 of the state is the network: nodes are feature maps, an edge is one input of one operator, from
    the feature map that is read to the one that is written. Level 1 holds a motif for each distinct operator
    (kind, kernel, stride, blocks and dense channels). What does not change with the widths is computed once.

    The state is a `torch_geometric.data.Batch` of disjoint graphs with the fields

    | field | shape | meaning |
    |---|---|---|
    | `x` | (B n, F) | features of the feature maps, below |
    | `edge_index`, `edge_attr` | (2, B e), (B e, EDGE_DIM) | operators and their features, below |
    | `batch`, `ptr` | (B n,), (B + 1,) | the graph of each node, where each graph starts |
    | `edge_motif` | (B e,) | the motif of each edge |
    | `motif_x`, `motif_edge_index`, `motif_weight`, `motif_size` | | level-1 graphs (`motif`), end to end |
    | `motif_batch` | (nodes of motifs,) | the motif of each of their nodes |
    | `decision_index`, `decision_weight` | (2, B i), (B i,) | pairs (node, channel group) and their weights |
    | `num_decisions` | int | B G, groups in the batch |

    The weight of a node in a group's readout is the share of its channels that is the group's, normalised
    over nodes.

    Node features (all finite, within about [-1, 1]; "share" of MACs or parameters is relative to the largest
    feature map of the dense network unless stated otherwise):

    | column | meaning |
    |---|---|
    | 0 | channels now / dense channels |
    | 1, 2 | log2 of channels now, of dense channels, / 12 |
    | 3 | log2 of positions (elements a channel) / 16 |
    | 4 | place in the order of computation, -1 first to 1 last |
    | 5, 6 | MACs, parameters now of the operator that writes the map, share |
    | 7 | MACs now of the operators that read it, share |
    | 8 | prunable part of its channels |
    | 9, 10 | MACs, parameters saved by halving its groups alone, relative to the most that one group saves |
    | 11 to 21 | kind of the operator that writes it, one-hot (none for the network's input) |
    | 22, 23 | whole network: MACs, parameters now / dense |
    | 24, 25 | whole network: limits of MACs and of parameters / dense (1: no limit) |
    | 26, 27 | whole network: how far MACs and parameters now exceed these limits |
    | 28 | share of the episode's steps that is left |
    | 29 on | statistics of its groups, standardised over groups: (s - mean) / (3 std), clipped to [-1, 1] |

    Edge features:

    | column | meaning |
    |---|---|
    | 0 to 10 | kind of the operator, one-hot |
    | 11, 12 | MACs, parameters now of the operator, share |
    | 13, 14 | channels kept of the map read, of the map written |
    | 15, 16, 17 | log2 of kernel / 3, of stride / 3, of blocks / 10 |

    Args:
        graph: The traced network (`gnnrl_lightning.trace`).
        statistics: (G, K) finite statistics of the channel groups, any scale; None for none.

    Raises:
        ValueError: The statistics are not (G, K) or not finite.

    Source: GNN-RL (Yu, Mazaheri, Jannesari, ICML 2022), section 4.1, hierarchical computational graph.
    """

    def __init__(self, graph: Any, statistics: Tensor | None = None) -> None:
        self.graph = graph
        self.num_groups = len(graph.groups)
        self.num_nodes = len(graph.feature_maps)
        self.state_dim = NODE_DIM
        dense = graph.widths[None]
        self._dense_channels = graph.channels(dense).float().clamp(min=1)
        self._dense_macs = graph.cost.macs(dense).double()
        self._dense_params = graph.cost.params(dense).double()
        self._edges(graph)
        self._motifs(graph)
        self._decisions(graph)
        writes = torch.zeros(len(graph.operators), self.num_nodes)
        reads = torch.zeros(len(graph.operators), self.num_nodes)
        for number, operator in enumerate(graph.operators):
            writes[number, operator.output] = 1.0
            reads[number, sorted(set(operator.inputs))] = 1.0
        self._writes, self._reads = writes, reads
        self._macs_scale = self._scale(graph.cost.operator_macs(dense), writes)
        self._params_scale = self._scale(graph.cost.operator_params(dense), writes)
        self._static = self._static_nodes(graph)
        if statistics is not None:
            self._statistics = self._group_to_node @ _standardise(statistics, self.num_groups)
            self.state_dim += statistics.shape[1]
        else:
            self._statistics = torch.zeros(self.num_nodes, 0)
        self._batches: dict[int, dict[str, Any]] = {}

    @staticmethod
    def _scale(cost: Tensor, writes: Tensor) -> float:
        return max(float((cost.float() @ writes).max()), 1.0)

    def _edges(self, graph: Any) -> None:
        pairs = [(i, o.output, n) for n, o in enumerate(graph.operators) for i in o.inputs]
        self._edge_index = torch.tensor([[p[0] for p in pairs], [p[1] for p in pairs]], dtype=torch.long)
        self._edge_operator = torch.tensor([p[2] for p in pairs], dtype=torch.long)
        features = torch.zeros(len(pairs), EDGE_DIM)
        for row, (_, _, number) in enumerate(pairs):
            operator = graph.operators[number]
            features[row, KINDS.index(operator.kind)] = 1.0
            kernel, stride, blocks = geometry(operator)
            features[row, -3:] = torch.tensor([kernel, stride, blocks]).log2() / torch.tensor([3.0, 3.0, 10.0])
        self._edge_static = features

    def _motifs(self, graph: Any) -> None:
        channels = self._dense_channels[0].long().tolist()
        keys: dict[tuple[Any, ...], int] = {}
        edge_motif = []
        for source, number in zip(self._edge_index[0].tolist(), self._edge_operator.tolist(), strict=True):
            operator = graph.operators[number]
            key = (operator.kind, channels[source], channels[operator.output], *geometry(operator))
            edge_motif.append(keys.setdefault(key, len(keys)))
        self._edge_motif = torch.tensor(edge_motif, dtype=torch.long)
        motifs = [motif(kind, i, o, kernel, stride, int(blocks)) for kind, i, o, kernel, stride, blocks in keys]
        self.num_motifs = len(motifs)
        self._motif = {
            "motif_x": torch.cat([m["x"] for m in motifs]),
            "motif_edge_index": torch.cat([m["edge_index"] + 3 * n for n, m in enumerate(motifs)], dim=1),
            "motif_weight": torch.cat([m["weight"] for m in motifs]),
            "motif_size": torch.cat([m["size"] for m in motifs]),
            "motif_batch": torch.arange(len(motifs)).repeat_interleave(3),
        }

    def _decisions(self, graph: Any) -> None:
        owned = graph.incidence.float() * graph.widths.float()
        self._group_to_node = owned / self._dense_channels[0][:, None]
        nodes, groups = owned.nonzero(as_tuple=True)
        readout = self._group_to_node / self._group_to_node.sum(0).clamp(min=1e-12)
        self._decision_index = torch.stack([nodes, groups])
        self._decision_weight = readout[nodes, groups]

    def _static_nodes(self, graph: Any) -> Tensor:
        n, dense = self.num_nodes, graph.widths
        kinds = torch.zeros(n, len(KINDS))
        for operator in graph.operators:
            kinds[operator.output, KINDS.index(operator.kind)] = 1.0
        halved = dense.repeat(self.num_groups, 1)
        halved.diagonal().copy_((dense // 2).clamp(min=1))
        saved = torch.stack(
            [
                (self._dense_macs - graph.cost.macs(halved)).float(),
                (self._dense_params - graph.cost.params(halved)).float(),
            ],
            dim=1,
        )
        positions = torch.tensor([float(m.positions) for m in graph.feature_maps]).clamp(min=1)
        return torch.cat(
            [
                self._dense_channels[0].log2()[:, None] / 12,
                positions.log2()[:, None] / 16,
                torch.linspace(-1, 1, n)[:, None],
                self._group_to_node.sum(1, keepdim=True).clamp(max=1),
                self._group_to_node @ (saved / saved.amax(0).clamp(min=1)),
                kinds,
            ],
            dim=1,
        )

    def _batch(self, size: int) -> dict[str, Any]:
        """What a batch of this many states has whatever the widths are."""
        if size not in self._batches:
            shift = torch.arange(size)
            motif_nodes = 3 * self.num_motifs
            self._batches[size] = {
                "edge_index": _tile(self._edge_index, shift * self.num_nodes),
                "batch": shift.repeat_interleave(self.num_nodes),
                "ptr": torch.arange(size + 1) * self.num_nodes,
                "edge_motif": _tile(self._edge_motif[None], shift * self.num_motifs)[0],
                "motif_x": self._motif["motif_x"].repeat(size, 1),
                "motif_edge_index": _tile(self._motif["motif_edge_index"], shift * motif_nodes),
                "motif_weight": self._motif["motif_weight"].repeat(size),
                "motif_size": self._motif["motif_size"].repeat(size),
                "motif_batch": _tile(self._motif["motif_batch"][None], shift * self.num_motifs)[0],
                "decision_index": torch.stack(
                    [
                        _tile(self._decision_index[:1], shift * self.num_nodes)[0],
                        _tile(self._decision_index[1:], shift * self.num_groups)[0],
                    ]
                ),
                "decision_weight": self._decision_weight.repeat(size),
                "num_decisions": size * self.num_groups,
            }
        return self._batches[size]

    def __call__(self, widths: Tensor, limits: Tensor, left: Tensor | None = None) -> Batch:
        """State of a batch of candidates.

        Args:
            widths: (B, G) int64, channels of each group.
            limits: (B, 2) limits of MACs and of parameters relative to the dense network; 1 where there is
                none.
            left: (B,) share of the episode's steps that is left; all of them by default.

        Returns:
            A batch of B graphs with the fields of the class's table, on the CPU.
        """
        size = len(widths)
        left = torch.ones(size) if left is None else left
        kept = self.graph.channels(widths).float()
        operator_macs = self.graph.cost.operator_macs(widths)
        operator_params = self.graph.cost.operator_params(widths)
        macs, params = operator_macs.float() / self._macs_scale, operator_params.float() / self._params_scale
        now = torch.stack(
            [
                (operator_macs.sum(1) / self._dense_macs).float(),
                (self.graph.cost.params(widths) / self._dense_params).float(),
            ],
            dim=1,
        )
        whole = torch.cat([now, limits, now - limits, left[:, None]], dim=1)
        share = kept / self._dense_channels
        static = self._static.expand(size, -1, -1)
        x = torch.cat(
            [
                share[..., None],
                kept.clamp(min=1).log2()[..., None] / 12,
                static[..., :3],
                (macs @ self._writes)[..., None],
                (params @ self._writes)[..., None],
                (macs @ self._reads).clamp(max=2)[..., None],
                static[..., 3:],
                whole[:, None].expand(-1, self.num_nodes, -1),
                self._statistics.expand(size, -1, -1),
            ],
            dim=2,
        )
        edges = self._edge_static.repeat(size, 1, 1)
        first = len(KINDS)
        edges[..., first] = macs[:, self._edge_operator]
        edges[..., first + 1] = params[:, self._edge_operator]
        edges[..., first + 2] = share[:, self._edge_index[0]]
        edges[..., first + 3] = share[:, self._edge_index[1]]
        return Batch(x=x.flatten(0, 1), edge_attr=edges.flatten(0, 1), **self._batch(size))


def _tile(index: Tensor, shift: Tensor) -> Tensor:
    """(R, I) indices repeated for each graph, moved by its shift: (R, B I)."""
    return (index[:, None] + shift[:, None]).flatten(1)


def _standardise(statistics: Tensor, groups: int) -> Tensor:
    if statistics.ndim != 2 or len(statistics) != groups:
        raise ValueError(f"statistics have shape {tuple(statistics.shape)}, expected ({groups}, K): one row a group")
    if not statistics.isfinite().all():
        raise ValueError("statistics have entries that are NaN or infinite")
    centred = statistics.float() - statistics.float().mean(0)
    spread = centred.square().mean(0).sqrt()
    return (centred / (3 * spread.clamp(min=1e-12))).clamp(-1, 1)
