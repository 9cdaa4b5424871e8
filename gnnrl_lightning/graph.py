"""The public Python interface of a traced network: groups, costs, projection, plans.

graph = gnnrl_lightning.trace(network, example_inputs)
widths = graph.project(graph.widths, macs=0.5)
smaller = graph.plan(network, widths).apply(network)
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.cost.latency import LatencyModel
from gnnrl_lightning.cost.metrics import METRICS, SHOWN, Cost, as_text, bound
from gnnrl_lightning.cost.products import Products, axis_size
from gnnrl_lightning.cost.ranges import Limits, WidthRanges, as_proposals, as_whole
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.importance import Criterion, Importance, importance_scores, keep_best
from gnnrl_lightning.surgery.derived import count_costs, count_elements, cuts_of, dependents_of, reads_of
from gnnrl_lightning.surgery.plan import Plan, check_traced, shapes_of
from gnnrl_lightning.surgery.removable import Connected, Removable, find_removable
from gnnrl_lightning.surgery.selftest import find_faults
from gnnrl_lightning.tracing.axes import Selection
from gnnrl_lightning.tracing.groups import ChannelGroup, Channels, Fault, FrozenGroup, form_groups, part_otherwise
from gnnrl_lightning.tracing.passes import walk_network
from gnnrl_lightning.tracing.program.checks import as_inputs, check_network, check_takes
from gnnrl_lightning.tracing.program.copies import shared_copy
from gnnrl_lightning.tracing.program.export import Inputs, one_example
from gnnrl_lightning.tracing.reasons import Reason, find_reasons
from gnnrl_lightning.tracing.records import Contraction
from gnnrl_lightning.tracing.sizes.pruned_shapes import shapes_by_line
from gnnrl_lightning.tracing.sizes.tied_sizes import tie_sizes
from gnnrl_lightning.tracing.topology import FeatureMap, Operator, build_topology
from gnnrl_lightning.tracing.walk import Walk
from gnnrl_lightning.trees import to_device

MAX_ROUNDS = 12
"""Maximum number of rounds of the self-test, each of which freezes or parts at least one group."""


def trace(
    network: nn.Module,
    example_inputs: Any,
    self_test: bool = True,
    keep: Sequence[str | type[nn.Module]] = (),
    limits: Limits | None = None,
    passed: str | None = None,
) -> ComputationGraph:
    """Trace a network into its computational graph: groups of channels that are removed together, and costs.

    The network is not modified, and is traced in evaluation mode; code that only training runs is read where it uses
    tensors of its own or does not follow the pruned network.

    Args:
        network: A module that `torch.export` supports.
        example_inputs: Its input, batch first, or a tuple of its positional arguments, or a dictionary of its keyword
            arguments. Costs are for one example.
        self_test: Whether to compare a pruned network with the masked dense one in float64 and freeze faulty groups.
        keep: Layers that are not pruned: names of modules or parameters, globs (`layer1.*`), and module types or their
            import paths; see `gnnrl_lightning.tracing.keep.keep_layers`.
        limits: Lowest and highest widths by group, module or glob, see `gnnrl_lightning.cost.ranges.GroupLimit`.
        passed: Fingerprint of a graph of this network that has passed all tests: the same graph is not tested again.

    Raises:
        UserError: The network refuses the example, cannot be exported, has no MACs or others than its graph, or still
            fails the self-test after `MAX_ROUNDS`; or `keep` or `limits` match nothing.
    """
    check_network(network)
    inputs = as_inputs(example_inputs)
    given, inputs = inputs, one_example(inputs)
    try:
        walked, kept = walk_network(network, inputs, keep)
    except UserError:
        check_takes(network, given)  # raises a clearer error if the network itself refuses the example
        raise
    copied = shared_copy(network)
    unfit: dict[str, Fault] = {}
    for _ in range(MAX_ROUNDS):
        graph = ComputationGraph(walked, form_groups(walked, unfit), (inputs, self_test), kept)
        found = {} if graph.fingerprint == passed else find_faults(graph, copied, inputs, self_test)
        if not found:
            if not int(graph.cost.macs(graph.widths)):
                raise UserError(
                    f"{type(network).__name__} has no MACs for this example: expected a convolution or "
                    "linear layer that is used"
                )
            return graph.limited(limits)
        if any(fault.training for fault in found.values()) and not walked.trained:
            walked, kept = walk_network(network, inputs, keep, training=True)
            unfit = {}
            continue
        channels = graph._channels
        if part_otherwise(walked, channels, found) or tie_sizes(walked, network, inputs, channels, found):
            unfit = {}
            continue
        unfit |= found
    raise UserError(
        f"{type(network).__name__} cannot be pruned exactly: {next(iter(unfit.values())).reason}; change its code"
    )


class ComputationGraph:
    """A traced network; made by `trace`.

    Attributes:
        groups: Prunable channel groups, in the order of widths.
        frozen: Channels that cannot be removed, with reasons.
        widths: Dense widths `(G,)` int64.
        sets: Number of index sets of each group `(G,)` int64.
        least: Smallest width at which the network runs `(G,)` int64, without the user's limits.
        ranges: The user's lowest and highest width for each group.
        kept: Names of the modules and parameters that the user excludes from pruning.
        reads: Operator with MACs -> layouts of the prunable channels that it contracts.
        cost: MACs and parameters of candidates; see `cost_of` for other metrics.
        operators: Operators of the network, in order of computation.
        feature_maps: Tensors between the operators.
        outputs: Indices of the feature maps that the network returns.
        cuts: How each parameter and buffer shrinks, by name.
        dependents: What depends on the kept channels beside parameters and buffers.
        incidence: Channels of each feature map per unit of width `(n_maps, G)` float32.
    """

    def __init__(
        self, walked: Walk, channels: Channels, tested: tuple[Inputs, bool], kept: tuple[str, ...] = ()
    ) -> None:
        self.groups: tuple[ChannelGroup, ...] = channels.groups
        self.frozen: tuple[FrozenGroup, ...] = channels.frozen
        self.widths = torch.tensor([group.width for group in self.groups], dtype=torch.int64)
        self.sets = torch.tensor([group.sets for group in self.groups], dtype=torch.int64)
        self.least = torch.tensor([group.least for group in self.groups], dtype=torch.int64)
        self.ranges = WidthRanges.of(self.groups)
        self.kept = kept
        self._channels = channels
        self._walk, self._tested = walked, tested
        self._removable: Removable | None = None
        self.cuts, self.dependents = cuts_of(walked, channels), dependents_of(walked, channels)
        topology = build_topology(walked, lambda labels: self._channels.axis(labels) is not None)
        self.operators: tuple[Operator, ...] = topology.operators
        self.feature_maps: tuple[FeatureMap, ...] = topology.feature_maps
        self.outputs: tuple[int, ...] = topology.outputs
        self._values, self._costs = topology.values, dict[Any, Cost]()
        self._latency: LatencyModel | None = None
        self._map_sizes = [axis_size(self._channels.axis(labels), len(labels)) for labels in topology.channel_labels]
        self.cost = count_costs(walked, channels, self.cuts, topology.index, len(self.operators))
        self.reads = reads_of(walked, channels, topology.index)

    def __repr__(self) -> str:
        costs = (f"{name} {as_text(self.cost_of(name)(self.widths).item())}" for name in self.metrics)
        return f"ComputationGraph({len(self.groups)} groups, {', '.join(costs)})"

    def __str__(self) -> str:
        return self.summary()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_costs": {}}  # a metric of the user's may be a function that cannot be pickled

    def summary(self) -> str:
        """Describe the graph as text: dense costs, a line per group, and the reasons of frozen channels."""
        lines = [repr(self)]
        ends = zip(self.groups, self.ranges.lowest.tolist(), self.ranges.highest.tolist(), strict=True)
        for group, lowest, highest in ends:
            dimensions = f"{len(group.members)} tensor dimensions"
            lines.append(f"  {group.name}: {group.width} channels, from {lowest} to {highest}, in {dimensions}")
        for item in self.reasons:
            size = f"{item.channels} channels, {item.macs:,} MACs"
            where, what_to_do = f" ({item.source})" if item.source else "", f"; {item.remedy}" if item.remedy else ""
            why = f"{item.operator}: {item.reason}{where}{what_to_do}"
            lines.append(f"  frozen {', '.join(item.groups)}: {size}, {why}")
        return "\n".join(lines)

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Why channels are frozen, the reason that costs most MACs first."""
        return find_reasons(self._channels, self._walk.contractions, self.smallest)

    def limited(self, limits: Limits | None) -> ComputationGraph:
        """The same graph with other limits on the widths of groups; None: no limits.

        Args:
            limits: Name of a group or of the module that makes its channels, or glob -> `{"min": ..., "max": ...}`.

        Raises:
            UserError: A name matches no group, or the limits of a group contradict each other.
        """
        graph = copy.copy(self)
        graph.ranges = WidthRanges.of(self.groups, limits)
        return graph

    def limited_as(self, original: ComputationGraph) -> ComputationGraph:
        """The same graph with the limits on widths of the network that it was pruned from.

        Args:
            original: Graph of that network.
        """
        graph = copy.copy(self)
        graph.ranges = original.ranges.narrowed(self.groups)
        return graph

    @property
    def latency(self) -> LatencyModel:
        """Latency at any widths, milliseconds.

        Raises:
            UserError: It has not been measured.
        """
        if self._latency is None:
            raise UserError(
                "the latency of this network has not been measured: jobs measure it if budget.latency is set; in "
                "Python, see gnnrl_lightning.speed.whole.measure_latency"
            )
        return self._latency

    def with_latency(self, latency: LatencyModel) -> ComputationGraph:
        """The same graph with another model of its latency."""
        graph = copy.copy(self)
        graph._latency = latency
        graph._costs = {}  # a metric of the user's may be made of the latency
        return graph

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the registered metrics that this network has: measured ones only after their measurement."""
        return tuple(name for name, row in METRICS.items() if not row.measured or self._latency is not None)

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

    def cost_of(self, metric: Any) -> Cost:
        """A metric of this network as a function of widths `(..., G)`; cached.

        Args:
            metric: Name of `gnnrl_lightning.cost.metrics.METRICS`, import path, or metric object.

        Raises:
            UserError: The metric is unknown, or fails.
        """
        if metric not in self._costs:
            self._costs[metric] = bound(metric, self)
        return self._costs[metric]

    def costs(self, widths: Tensor) -> dict[str, int | float]:
        """Metric -> cost of a candidate `(G,)`, for the metrics that are always reported."""
        return {name: self.cost_of(name)(widths).item() for name in SHOWN}

    def channels(self, widths: Tensor) -> Tensor:
        """Channels of each feature map `(B, n_maps)` int64 at `widths (B, G)`."""
        return (widths.double() @ self.incidence.double().T).long() + self._fixed_channels

    @property
    def smallest(self) -> Tensor:
        """The smallest widths `(G,)`: one channel per index set, or the user's limits."""
        return self.ranges.lowest.clone()

    @property
    def removable(self) -> Removable:
        """Which groups may be removed entirely; found and tested at the first use."""
        if self._removable is None:
            inputs, self_test = self._tested
            network = shared_copy(self._walk.network)
            home = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
            self._removable = find_removable(cast(Connected, self), network, to_device(inputs, home), self_test)
        return self._removable

    @property
    def fingerprint(self) -> str:
        """Hash of the group names, widths and index sets; a recipe is valid only for a graph with the same hash."""
        text = ";".join(f"{group.name}:{group.width}x{group.sets}" for group in self.groups)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def project(
        self, widths: Tensor, channel_multiple: int = 1, min_width: int | None = None, **limits: float | str | None
    ) -> Tensor:
        """Project a proposal onto a budget: the nearest widths that cannot be widened; see `cost.projection.project`.

        Args:
            widths: Proposals `(G,)` or `(B, G)`.
            channel_multiple: Tensor dimensions are multiples of this, or dense.
            min_width: Minimum number of channels of a group, see `Budget`.
            **limits: Limits by name of a metric, as in `Budget`: `macs=0.5`.

        Raises:
            UserError: The widths are none; or the budget cannot be reached, and the message names the smallest cost.
        """
        budget = Budget(None, channel_multiple, min_width, **limits)
        return budget.on(self).project(as_proposals(widths, len(self.groups)))

    def plan(
        self,
        network: nn.Module,
        widths: Tensor,
        importance: str | Importance | Criterion = "l2",
        calibration: Tensor | None = None,
    ) -> Plan:
        """Select the channels to keep: the `width` most important ones of each group and index set.

        Args:
            network: The traced dense network, or one with the same shapes.
            widths: Widths `(G,)`, between 1 and dense, or 0 for groups that may go entirely, see `removable`.
            importance: A name of `gnnrl_lightning.importance.IMPORTANCES`, an import path, a row, or a criterion.
            calibration: Inputs for criteria that need data.

        Raises:
            UserError: The widths have a wrong length or are out of range, the criterion is unknown, or the network is
                not the traced one.
        """
        check_traced(network, self._shapes)
        widths = as_whole(widths, len(self.groups))
        self._check(widths)
        scores = importance_scores(self, network, importance, calibration)
        return self.plan_from([keep_best(score, int(width)) for score, width in zip(scores, widths, strict=True)])

    def _check(self, widths: Tensor) -> None:
        """Refuse widths out of range."""
        for number in ((widths < self.least) | (widths > self.widths)).nonzero()[:, 0].tolist():
            group, width, reason = self.groups[number], int(widths[number]), ""
            if width == 0:
                if self.removable.groups[number]:
                    continue
                reason = f", not 0: {self.removable.reasons[number]}"
            raise UserError(f"the width of {group.name} is {width}: expected {group.least} to {group.width}{reason}")

    def plan_from(self, kept: list[Tensor]) -> Plan:
        """Make a plan that keeps the given ranks, `(sets, width)` for each group, ascending."""
        named = {
            group.name: ranks[0] if group.sets == 1 else ranks for group, ranks in zip(self.groups, kept, strict=True)
        }
        widths = torch.tensor([ranks.shape[1] for ranks in kept], dtype=torch.int64)
        return Plan(named, widths, self.cuts, Selection(kept, self.widths.tolist()), self.dependents, self._shapes)

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return shapes_of(self._walk.network, self.cuts)

    @property
    def contractions(self) -> tuple[Contraction, ...]:
        """The operators with MACs, in order, with the labels that they read and write."""
        return tuple(self._walk.contractions)

    @property
    def norms(self) -> dict[str, dict[str, str]]:
        """Name of a contraction's node -> parameters of the batch norm that is its only reader, by role."""
        return self._walk.norms

    def shapes_by_line(self, widths: Tensor) -> dict[tuple[str, tuple[int, ...]], set[tuple[int, ...]]]:
        """Line of the user's code and dense shape -> shapes of the outputs that it computes at `widths (G,)`."""
        return shapes_by_line(self._walk.steps, self._channels, widths)
