"""The public Python interface of a traced network: groups, costs, projection, plans; `gnnrl_lightning.trace` makes it.

graph = gnnrl_lightning.trace(network, example_inputs)
widths = graph.project(graph.widths, macs=0.5)
smaller = graph.plan(network, widths).apply(network)
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.cost.latency import LatencyModel
from gnnrl_lightning.cost.metrics import METRICS, SHOWN, Cost, as_text, bound
from gnnrl_lightning.cost.products import PARTS
from gnnrl_lightning.cost.ranges import Limits, WidthRanges, as_proposals, as_whole, check_within
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.importance import Criterion, Importance, importance_scores, keep_best
from gnnrl_lightning.surgery.masks import find_weights
from gnnrl_lightning.surgery.plan import Plan, check_traced
from gnnrl_lightning.surgery.removable import Removable, find_removable
from gnnrl_lightning.surgery.traced import TracedNetwork
from gnnrl_lightning.tracing.groups import Channels
from gnnrl_lightning.tracing.program.copies import shared_copy
from gnnrl_lightning.tracing.program.export import Inputs
from gnnrl_lightning.tracing.reasons import Reason, find_reasons
from gnnrl_lightning.tracing.walk import Walk
from gnnrl_lightning.trees import to_device


class ComputationGraph(TracedNetwork):
    """A traced network with the user's limits, budgets and latency; made by `trace`.

    Attributes:
        ranges: The user's lowest and highest width for each group.
        kept: Names of the modules and parameters that the user excludes from pruning.
    """

    def __init__(
        self, walked: Walk, channels: Channels, tested: tuple[Inputs, bool], kept: tuple[str, ...] = ()
    ) -> None:
        super().__init__(walked, channels)
        self.ranges = WidthRanges.of(self.groups)
        self.kept = kept
        self._tested = tested
        self._removable: Removable | None = None
        self._unmasked: ComputationGraph | None = None
        self._costs: dict[Any, Cost] = {}
        self._latency: LatencyModel | None = None

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
            what = f"in {len(group.members)} tensor dimensions" if group.sets else "of a masked weight"
            units = "channels" if group.sets else "parts"
            lines.append(f"  {group.name}: {group.width} {units}, from {lowest} to {highest}, {what}")
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

    def masking(self, network: nn.Module, layers: Sequence[str | type[nn.Module]]) -> ComputationGraph:
        """The same graph with a further group for the weight of each of these linear layers.

        Args:
            network: The traced network.
            layers: Names of modules, globs, and module types or their import paths.

        Raises:
            UserError: An item matches no linear layer, or one that may not be masked; or all of them are kept.
        """
        found = find_weights(network, layers)
        weights = tuple(name for name in found if not any(f"{name}.".startswith(f"{kept}.") for kept in self.kept))
        if not weights:
            raise UserError("groups.masks: groups.keep leaves all of these layers unchanged; change one of them")
        read = {item.weight for item in self.contractions}
        for name in weights:
            if name not in read:
                raise UserError(f"groups.masks: the network's outputs do not depend on {name}; leave the layer out")
        graph = ComputationGraph(self._walk, self._channels.with_masks(weights, PARTS), self._tested, self.kept)
        graph._unmasked = self
        return graph

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
                "Python, see gnnrl_lightning.speed.latency.measure_latency"
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
        return tuple(
            name
            for name, row in METRICS.items()
            if (self._latency is not None or not row.measured) and (self.masks or not row.masked)
        )

    def cost_of(self, metric: Any) -> Cost:
        """A metric of this network as a function of widths `(..., G)`; cached.

        Args:
            metric: Name of `gnnrl_lightning.cost.metrics.METRICS`, import path, or metric object.

        Raises:
            UserError: The metric is unknown, or fails.
        """
        if not isinstance(metric, Hashable):
            return bound(metric, self)
        if metric not in self._costs:
            self._costs[metric] = bound(metric, self)
        return self._costs[metric]

    def costs(self, widths: Tensor) -> dict[str, int | float]:
        """Metric -> cost of a candidate `(G,)`, for the metrics that are always reported."""
        widths = as_whole(widths, len(self.groups))
        return {name: self.cost_of(name)(widths).item() for name in SHOWN}

    @property
    def smallest(self) -> Tensor:
        """The smallest widths `(G,)`: one channel per index set, or the user's limits."""
        return self.ranges.lowest.clone()

    @property
    def removable(self) -> Removable:
        """Which groups may be removed entirely; found and tested at the first use."""
        if self._removable is None and self._unmasked is not None:
            self._removable = self._unmasked.removable.with_masks(len(self.masks))
        if self._removable is None:
            inputs, self_test = self._tested
            network = shared_copy(self._walk.network)
            home = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
            with torch.compiler.set_stance("force_eager"):  # as in `trace`
                self._removable = find_removable(self, network, to_device(inputs, home), self_test)
        return self._removable

    @property
    def fingerprint(self) -> str:
        """Hash of the names, widths and index sets of the channel groups; a recipe fits graphs of the same hash."""
        text = ";".join(f"{group.name}:{group.width}x{group.sets}" for group in self.groups if group.sets)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def project(
        self, widths: Tensor, channel_multiple: int = 1, min_width: int | None = None, **limits: float | str | None
    ) -> Tensor:
        """Project a proposal onto a budget: the nearest widths that cannot be widened; see `cost.projection.project`.

        Args:
            widths: Proposals `(G,)` or `(B, G)`, from 0 to dense; fractions of channels are rounded.
            channel_multiple: Tensor dimensions are multiples of this, or dense.
            min_width: Minimum number of channels of a group, see `Budget`.
            **limits: Limits by name of a metric, as in `Budget`: `macs=0.5`.

        Raises:
            UserError: No channels can be pruned; the widths are none, or out of range; or the budget cannot be reached,
                and the message names the smallest cost.
        """
        if not self.groups:
            raise UserError("the network has no channels that can be pruned: see `reasons` of the graph")
        limit = Budget(None, channel_multiple, min_width, **limits)
        proposals = as_proposals(widths, len(self.groups))
        check_within(proposals, self.widths, [group.name for group in self.groups])
        return limit.on(self).project(proposals)

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
        check_traced(network, self.shapes)
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
