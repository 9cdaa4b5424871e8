"""A traced network: what surgery, importance and repairs read of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from gnnrl_lightning.cost.products import CostModel, Products, axis_size
from gnnrl_lightning.surgery.derived import count_costs, count_elements, cuts_of, dependents_of, reads_of
from gnnrl_lightning.surgery.plan import Plan, shapes_of
from gnnrl_lightning.surgery.surgery import Cut, Dependents
from gnnrl_lightning.tracing.axes import Axis, Selection
from gnnrl_lightning.tracing.groups import ChannelGroup, Channels, FrozenGroup
from gnnrl_lightning.tracing.records import Contraction
from gnnrl_lightning.tracing.sizes.pruned_shapes import shapes_by_line
from gnnrl_lightning.tracing.topology import FeatureMap, Operator, build_topology
from gnnrl_lightning.tracing.walk import Walk


class TracedNetwork:
    """Channel groups, topology and costs of a network, and how its tensors shrink.

    Attributes:
        groups: Prunable channel groups, in the order of widths, and after them the masked weights.
        frozen: Channels that cannot be removed, with reasons.
        widths: Dense widths `(G,)` int64.
        sets: Number of index sets of each group `(G,)` int64.
        least: Smallest width at which the network runs `(G,)` int64.
        masks: Group of each masked weight -> operator that reads it.
        reads: Operator with MACs -> layouts of the prunable channels that it contracts.
        cost: MACs and parameters of candidates.
        operators: Operators of the network, in order of computation.
        feature_maps: Tensors between the operators.
        outputs: Indices of the feature maps that the network returns.
        cuts: How each parameter and buffer shrinks, by name.
        dependents: What depends on the kept channels beside parameters and buffers.
    """

    def __init__(self, walked: Walk, channels: Channels) -> None:
        self.groups: tuple[ChannelGroup, ...] = channels.groups
        self.frozen: tuple[FrozenGroup, ...] = channels.frozen
        self.widths = torch.tensor([group.width for group in self.groups], dtype=torch.int64)
        self.sets = torch.tensor([group.sets for group in self.groups], dtype=torch.int64)
        self.least = torch.tensor([group.least for group in self.groups], dtype=torch.int64)
        self._walk, self._channels = walked, channels
        self.cuts: Mapping[str, Cut] = cuts_of(walked, channels)
        self.dependents: Dependents = dependents_of(walked, channels)
        topology = build_topology(walked, lambda labels: channels.axis(labels) is not None)
        self.operators: tuple[Operator, ...] = topology.operators
        self.feature_maps: tuple[FeatureMap, ...] = topology.feature_maps
        self.outputs: tuple[int, ...] = topology.outputs
        self._values = topology.values
        self._map_sizes = [axis_size(channels.axis(labels), len(labels)) for labels in topology.channel_labels]
        self.cost: CostModel = count_costs(walked, channels, self.cuts, topology.index, len(self.operators))
        self.reads: dict[int, tuple[Axis, ...]] = reads_of(walked, channels, topology.index)
        self.masks = {number: topology.index[group.name] for number, group in enumerate(self.groups) if not group.sets}

    @cached_property
    def incidence(self) -> Tensor:
        """Channels of each feature map per unit of width `(n_maps, G)` float32."""
        table = torch.zeros(len(self.feature_maps), len(self.groups))
        for i, (_, counts) in enumerate(self._map_sizes):
            for group, count in counts.items():
                table[i, group] = count
        return table

    @cached_property
    def _fixed_channels(self) -> Tensor:
        return torch.tensor([fixed for fixed, _ in self._map_sizes])

    @cached_property
    def elements(self) -> Products:
        """Number of elements of each feature map `(B, n_maps)` int64, for one example, at `widths (B, G)`."""
        return count_elements(self._values, self._channels)

    def channels(self, widths: Tensor) -> Tensor:
        """Channels of each feature map `(B, n_maps)` int64 at `widths (B, G)`."""
        return (widths.double() @ self.incidence.double().T).long() + self._fixed_channels

    @property
    def contractions(self) -> tuple[Contraction, ...]:
        """The operators with MACs, in order, with the labels that they read and write."""
        return tuple(self._walk.contractions)

    @property
    def norms(self) -> dict[str, dict[str, str]]:
        """Name of a contraction's node -> parameters of the batch norm that is its only reader, by role."""
        return self._walk.norms

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the network's parameters and pruned buffers, by name."""
        return shapes_of(self._walk.network, self.cuts)

    def shapes_by_line(self, widths: Tensor) -> dict[tuple[str, tuple[int, ...]], set[tuple[int, ...]]]:
        """Line of the user's code and dense shape -> shapes of the outputs that it computes at `widths (G,)`."""
        return shapes_by_line(self._walk.steps, self._channels, widths)

    def plan_from(self, kept: list[Tensor]) -> Plan:
        """Make a plan that keeps the given ranks, `(sets, width)` for each group, ascending; of masks, their number."""
        named = {
            group.name: ranks[0] if group.sets == 1 else ranks
            for group, ranks in zip(self.groups, kept, strict=True)
            if group.sets
        }
        widths = torch.tensor([ranks.shape[1] for ranks in kept], dtype=torch.int64)
        selection = Selection(kept, self.widths.tolist())
        masks = {self.groups[number].name: int(widths[number]) for number in self.masks}
        return Plan(named, widths, self.cuts, selection, self.dependents, self.shapes, masks)

    @property
    def masked(self) -> tuple[str, ...]:
        """Names of the masked weights."""
        return tuple(self.groups[number].name for number in self.masks)
