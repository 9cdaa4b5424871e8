"""The hierarchical state graph: the policy's view of a network that is being pruned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch

from gnnrl_lightning.cost.metrics import METRICS, SHOWN
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.rl.state.motifs import geometry, motif, packed
from gnnrl_lightning.tracing.topology import KINDS, stages

EDGE_DIM = len(KINDS) + 7
NODE_DIM = 11 + len(KINDS) + 7
"""Number of node features if the metrics are MACs and parameters and there are no statistics."""

EDGE_COSTS = 2
"""Number of costs among the edge features: MACs and parameters."""


class StateBuilder:
    """Builds the state graph of a network at given widths, using tensor operations only.

    Level 2 of the state is the network. Nodes are feature maps. A stage is an operator with the batch norm and
    activation that are its only readers, see `topology.stages`. Each input of a stage is an edge, from the feature map
    that the stage reads to the one that it writes; maps within a stage are not nodes. Level 1 has a motif for each
    distinct stage (kinds, kernel, stride, blocks and dense channels).

    The state is a `torch_geometric.data.Batch` with the fields of `gnnrl_lightning.rl.state.graph.StateGraph`. All
    graphs of a batch share the motifs, and each channel group is a decision.
    `gnnrl_lightning.rl.state.assemble.state_from` builds such a batch from any graph, traced or not.

    The weight of a node in a group's readout is the group's share of the node's channels, normalised over nodes. The
    readout of a masked weight is the node that its layer's stage writes.

    Node features (all finite, within about [-1, 1]; a "share" of MACs or parameters is relative to the largest
    feature map of the dense network unless stated otherwise):

    | column | meaning |
    |---|---|
    | 0 | channels now / dense channels |
    | 1, 2 | log2 of channels now, of dense channels, / 12 |
    | 3 | log2 of positions (elements per channel) / 16 |
    | 4 | position in the order of computation, from -1 (first) to 1 (last) |
    | 5, 6 | MACs, parameters now of the stage that writes the map, share |
    | 7 | MACs now of the stages that read it, share |
    | 8 | prunable share of its channels |
    | 9, 10 | MACs, parameters saved by halving only its groups, relative to the largest saving of any group |
    | 11 to 21 | kinds of the operators that write it, multi-hot (zeros for the network's input) |
    | 22, 23 | whole network: MACs, parameters now / dense |
    | 24, 25 | whole network: limits on MACs and parameters / dense (1: no limit) |
    | 26, 27 | whole network: excess of current MACs and parameters over these limits |
    | 28 | remaining share of the episode's steps |
    | from 29 | statistics of its groups, standardised over groups: (s - mean) / (3 std), clipped to [-1, 1] |

    Each metric other than MACs and parameters adds columns after those of parameters: the saving by halving and, for
    the whole network, the cost, the limit and the excess. A metric that is a sum over operators also adds the cost of
    the stage that writes the map. Later columns shift accordingly.

    Edge features:

    | column | meaning |
    |---|---|
    | 0 to 10 | kinds of the stage's operators, multi-hot |
    | 11, 12 | MACs, parameters now of the stage, share |
    | 13, 14 | share of channels kept of the map read, of the map written |
    | 15, 16, 17 | log2 of kernel / 3, of stride / 3, of blocks / 10 |

    Args:
        graph: The traced network (`gnnrl_lightning.trace`).
        statistics: (G, K) finite statistics of the channel groups, of any scale; None: no statistics.
        metrics: M metrics by name, MACs and parameters first, see `BoundBudget.metrics`; None: only these two.
        group_features: Number K of further features of each group, which a call gives: the last columns of nodes.

    Attributes:
        cost_columns: Columns of the node features with costs of stages.
        kind_columns: Columns of the node features with kinds of operators.

    Raises:
        ValueError: The statistics have the wrong shape or are not finite.

    Source: GNN-RL (Yu, Mazaheri, Jannesari, ICML 2022), section 4.1, hierarchical computational graph.
    """

    def __init__(
        self,
        graph: ComputationGraph,
        statistics: Tensor | None = None,
        metrics: Mapping[str, Any] | None = None,
        group_features: int = 0,
    ) -> None:
        self.graph = graph
        given = list((dict.fromkeys(SHOWN) if metrics is None else metrics).items())
        self._costs = [graph.cost_of(name if metric is None else metric) for name, metric in given]
        rows = [METRICS.find(name if metric is None else metric) for name, metric in given]
        self._operator_costs = [row.of_operators(graph) for row in rows if row.of_operators is not None]
        self.stages = stages(graph.operators)
        read = {source for stage in self.stages for source in stage.inputs}
        self.maps = torch.tensor(sorted(read | {stage.output for stage in self.stages}), dtype=torch.long)
        self.num_groups, self.num_nodes = len(graph.groups), len(self.maps)
        spread, metrics_count = len(self._operator_costs), len(self._costs)
        self.cost_columns = slice(5, 6 + spread)
        self.kind_columns = slice(8 + spread + metrics_count - 1, 8 + spread + metrics_count - 1 + len(KINDS))
        self.state_dim = NODE_DIM + spread - 2 + 4 * (metrics_count - 2)
        dense = graph.widths[None]
        self._dense_channels = graph.channels(dense)[:, self.maps].float().clamp(min=1)
        self._dense_costs = [cost(dense).double() for cost in self._costs]
        self._edges()
        self._motifs()
        self._decisions(graph)
        self._stage_costs(graph)
        self._static = self._static_nodes(graph)
        self._statistics = torch.zeros(self.num_nodes, 0)
        if statistics is not None:
            self._statistics = self._group_to_node @ _standardise(statistics, self.num_groups)
        self.group_features = group_features
        self.state_dim += self._statistics.shape[1] + group_features
        self._batches: dict[int, dict[str, Any]] = {}

    def _node(self, feature_map: int) -> int:
        """Index of a feature map's node."""
        return int(torch.searchsorted(self.maps, feature_map))

    def _stage_costs(self, graph: ComputationGraph) -> None:
        """Incidence matrices of stages with their operators and with the maps that they write and read."""
        members = torch.zeros(len(graph.operators), len(self.stages))
        writes = torch.zeros(len(self.stages), self.num_nodes)
        reads = torch.zeros(len(self.stages), self.num_nodes)
        for number, stage in enumerate(self.stages):
            members[list(stage.members), number] = 1.0
            writes[number, self._node(stage.output)] = 1.0
            reads[number, [self._node(source) for source in stage.inputs]] = 1.0
        self._members, self._writes, self._reads = members, writes, reads
        dense = graph.widths[None]
        largest = (float((cost(dense).float() @ members).max()) for cost in self._operator_costs)
        self._scales = [most if most > 0 else 1.0 for most in largest]

    def _edges(self) -> None:
        pairs = [(source, stage, n) for n, stage in enumerate(self.stages) for source in stage.inputs]
        self._edge_index = torch.tensor(
            [[self._node(source) for source, _, _ in pairs], [self._node(stage.output) for _, stage, _ in pairs]]
        ).reshape(2, -1)
        self._edge_stage = torch.tensor([n for _, _, n in pairs], dtype=torch.long)
        features = torch.zeros(len(pairs), EDGE_DIM)
        for row, (_, stage, _) in enumerate(pairs):
            features[row, [KINDS.index(kind) for kind in stage.kinds]] = 1.0
            features[row, -3:] = torch.tensor(geometry(stage)).log2() / torch.tensor([3.0, 3.0, 10.0])
        self._edge_static = features

    def _motifs(self) -> None:
        channels = self._dense_channels[0].long().tolist()
        keys: dict[tuple[Any, ...], int] = {}
        edge_motif = []
        for (source, target), number in zip(self._edge_index.T.tolist(), self._edge_stage.tolist(), strict=True):
            stage = self.stages[number]
            key = (stage.kinds, channels[source], channels[target], *geometry(stage))
            edge_motif.append(keys.setdefault(key, len(keys)))
        self._edge_motif = torch.tensor(edge_motif, dtype=torch.long)
        self._motif = packed([motif(*key) for key in keys])

    def _decisions(self, graph: ComputationGraph) -> None:
        owned = graph.incidence.float()[self.maps] * graph.widths.float()
        self._prunable = (owned / self._dense_channels[0][:, None]).sum(1, keepdim=True).clamp(max=1)
        stage_of = {operator: stage for stage in self.stages for operator in stage.members}
        for group, operator in graph.masks.items():
            node = self._node(stage_of[operator].output)
            owned[node, group] = self._dense_channels[0, node]
        self._group_to_node = owned / self._dense_channels[0][:, None]
        nodes, groups = owned.nonzero(as_tuple=True)
        readout = self._group_to_node / self._group_to_node.sum(0).clamp(min=1e-12)
        self._decision_index = torch.stack([nodes, groups])
        self._decision_weight = readout[nodes, groups]

    def _static_nodes(self, graph: ComputationGraph) -> Tensor:
        n, dense = self.num_nodes, graph.widths
        kinds = torch.zeros(n, len(KINDS))
        for stage in self.stages:
            kinds[self._node(stage.output), [KINDS.index(kind) for kind in stage.kinds]] = 1.0
        halved = dense.repeat(self.num_groups, 1)
        halved.diagonal().copy_((dense // 2).clamp(min=1))
        saved = torch.stack(
            [(whole - cost(halved)).float() for cost, whole in zip(self._costs, self._dense_costs, strict=True)], dim=1
        )
        most = saved.amax(0) if self.num_groups else torch.ones(len(self._costs))
        saved = (saved / torch.where(most > 0, most, 1)).clamp(-1, 1)  # a measured cost may rise
        positions = torch.tensor([float(graph.feature_maps[m].positions) for m in self.maps.tolist()]).clamp(min=1)
        return torch.cat(
            [
                self._dense_channels[0].log2()[:, None] / 12,
                positions.log2()[:, None] / 16,
                torch.linspace(-1, 1, n)[:, None],
                self._prunable,
                self._group_to_node @ saved,
                kinds,
            ],
            dim=1,
        )

    def _batch(self, size: int) -> dict[str, Any]:
        """Fields of a batch that do not depend on the widths."""
        if size not in self._batches:
            shift = torch.arange(size)
            self._batches[size] = {
                "edge_index": tile(self._edge_index, shift * self.num_nodes),
                "batch": shift.repeat_interleave(self.num_nodes),
                "ptr": torch.arange(size + 1) * self.num_nodes,
                "edge_motif": self._edge_motif.repeat(size),
                **self._motif,
                "decision_index": torch.stack(
                    [
                        tile(self._decision_index[0], shift * self.num_nodes),
                        tile(self._decision_index[1], shift * self.num_groups),
                    ]
                ),
                "decision_weight": self._decision_weight.repeat(size),
                "decision_batch": shift.repeat_interleave(self.num_groups),
            }
        return self._batches[size]

    def __call__(
        self,
        widths: Tensor,
        limits: Tensor,
        left: Tensor | None = None,
        proposal: tuple[Tensor, Tensor] | None = None,
        features: Tensor | None = None,
        odds: Tensor | None = None,
    ) -> Batch:
        """State of a batch of candidates.

        Args:
            widths: (B, G) int64, channels of each group.
            limits: (B, M) limits of the metrics relative to the dense network; 1 without a limit.
            left: (B,) remaining share of the episode's steps; 1 by default.
            proposal: (B, G) initial actions in [0, 1], and (B, G) the change of the action that removes one channel;
                None: no proposals.
            features: (B, G, K) features of the groups that differ between the graphs; None: there are none (K is 0).
            odds: (B, G) initial log-odds of removing each group; None: no group may go.

        Returns:
            A batch of B graphs, on the CPU.
        """
        size = len(widths)
        left = torch.ones(size) if left is None else left
        kept = self.graph.channels(widths)[:, self.maps].float()
        staged = [
            cost(widths).float() @ self._members / scale
            for cost, scale in zip(self._operator_costs, self._scales, strict=True)
        ]
        now = torch.stack(
            [(cost(widths) / whole).float() for cost, whole in zip(self._costs, self._dense_costs, strict=True)], dim=1
        )
        whole = torch.cat([now, limits, now - limits, left[:, None]], dim=1)
        share = kept / self._dense_channels
        static = self._static.expand(size, -1, -1)
        x = torch.cat(
            [
                share[..., None],
                kept.clamp(min=1).log2()[..., None] / 12,
                static[..., :3],
                *((cost @ self._writes)[..., None] for cost in staged),
                (staged[0] @ self._reads).clamp(max=2)[..., None],
                static[..., 3:],
                whole[:, None].expand(-1, self.num_nodes, -1),
                self._statistics.expand(size, -1, -1),
                *(() if features is None else (self._group_to_node @ features,)),
            ],
            dim=2,
        )
        edges = self._edge_static.repeat(size, 1, 1)
        first = len(KINDS)
        # Nodes hold the costs of all metrics; edges hold only the first ones, so that their size is constant.
        for column, cost in enumerate(staged[:EDGE_COSTS]):
            edges[..., first + column] = cost[:, self._edge_stage]
        edges[..., first + 2] = share[:, self._edge_index[0]]
        edges[..., first + 3] = share[:, self._edge_index[1]]
        start = {} if proposal is None else {"proposal": proposal[0].flatten(), "proposal_step": proposal[1].flatten()}
        start |= {} if odds is None else {"proposal_odds": odds.flatten()}
        return Batch(x=x.flatten(0, 1), edge_attr=edges.flatten(0, 1), **self._batch(size), **start)


def tile(index: Tensor, shift: Tensor) -> Tensor:
    """Repeat indices `(..., I)` for each graph, offset by its shift `(B,)`: `(..., B I)`."""
    return (index[..., None, :] + shift[:, None]).flatten(-2)


def _standardise(statistics: Tensor, groups: int) -> Tensor:
    if statistics.ndim != 2 or len(statistics) != groups:
        raise ValueError(f"statistics have shape {tuple(statistics.shape)}: expected ({groups}, K): one row per group")
    if not statistics.isfinite().all():
        raise ValueError("statistics have entries that are NaN or infinite")
    centred = statistics.float() - statistics.float().mean(0)
    spread = centred.square().mean(0).sqrt()
    return (centred / (3 * spread.clamp(min=1e-12))).clamp(-1, 1)
