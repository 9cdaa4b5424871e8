"""Budgets: upper limits on the costs of the pruned network, see `gnnrl_lightning.cost.metrics`.

```
limits = Budget(macs=0.5, activations="512k").on(graph)
widths = limits.project(graph.widths)  # meets every limit, and no group could be wider
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from gnnrl_lightning.checks import shown, whole
from gnnrl_lightning.cost.limit import Limit, parse_limit
from gnnrl_lightning.cost.metrics import LATENCY, METRICS, NONZERO, SHOWN, Cost, as_text, metric_name
from gnnrl_lightning.cost.projection import AllowedWidths, Limits, fits, project
from gnnrl_lightning.cost.ranges import WidthRanges, as_proposals, as_whole
from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.options import AUTO


class Removable(Protocol):
    """Groups that may be removed entirely, see `gnnrl_lightning.surgery.removable.Removable`."""

    @property
    def groups(self) -> Tensor: ...  # noqa: D102
    @property
    def useless(self) -> Tensor: ...  # noqa: D102
    def but(self, stay: Tensor) -> Removable: ...  # noqa: D102


class Prunable(Protocol):
    """The part of a traced network that a budget reads."""

    @property
    def widths(self) -> Tensor: ...  # noqa: D102
    @property
    def sets(self) -> Tensor: ...  # noqa: D102
    @property
    def ranges(self) -> WidthRanges: ...  # noqa: D102
    @property
    def removable(self) -> Removable: ...  # noqa: D102
    def cost_of(self, metric: Any) -> Cost: ...  # noqa: D102


@dataclass(frozen=True, init=False, repr=False)
class Budget:
    """Upper limits on the costs of the pruned network, all of which must hold.

    Args:
        limits: Metric -> limit. A metric is a name of `METRICS`, an import path, or a metric object; a limit is as in
            `parse_limit`, or None for no limit.
        channel_multiple: Widths are multiples of this number of channels, or dense; auto: the number with which the
            network is fastest, which a job measures, see `gnnrl_lightning.speed.alignment`.
        min_width: Minimum number of channels that each group keeps (all of them, if it has fewer); 0: groups without
            which the network stays connected may be removed entirely, with their layers; None: 0 if the latency is
            limited, of which whole layers save most, else 1.
        **rows: Limits by name of a metric, `Budget(macs=0.5, activations="50%")`.

    Raises:
        UserError: There is no limit, a limit is invalid, or a metric is unknown or given twice.
    """

    limits: Mapping[Any, float | str]
    channel_multiple: int | Literal["auto"]
    min_width: int

    def __init__(
        self,
        limits: Mapping[Any, float | str | None] | None = None,
        channel_multiple: int | Literal["auto"] = 1,
        min_width: int | None = None,
        **rows: float | str | None,
    ) -> None:
        if limits is not None and not isinstance(limits, Mapping):
            raise UserError(f"budget.limits is {shown(limits)}: expected limits by metric, such as {{'macs': 0.5}}")
        for key in rows:
            METRICS.find(key, "budget")
        given = [(key, value) for key, value in (*rows.items(), *(limits or {}).items()) if value is not None]
        if not given:
            raise UserError(f"the budget is empty: give a limit on {', '.join(METRICS)}, for example macs: 0.5")
        names = [metric_name(key) for key, _ in given]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"budget has {name} twice: give one limit")
        for key, value in given:
            name = metric_name(key)
            parse_limit(value, f"budget.{name}", METRICS.find(key, "budget").unit)
        if min_width is None:
            min_width = 0 if LATENCY in names else 1
        for name, value in (("channel_multiple", channel_multiple), ("min_width", min_width)):
            if isinstance(value, str) and value == AUTO and name == "channel_multiple":
                continue
            whole(f"budget.{name}", value, int(name == "channel_multiple"))
        object.__setattr__(self, "limits", dict(given))
        object.__setattr__(self, "channel_multiple", channel_multiple)
        object.__setattr__(self, "min_width", min_width)

    def __repr__(self) -> str:
        return f"Budget({', '.join(f'{name}={value}' for name, value in self.as_record().items())})"

    def with_limits(self, **limits: float | str | None) -> Budget:
        """The same budget with other limits on some metrics; None removes a limit."""
        return Budget({**self.limits, **limits}, self.channel_multiple, self.min_width)

    def aligned(self, channel_multiple: int) -> Budget:
        """The same budget with widths that are multiples of another number of channels."""
        return Budget(self.limits, channel_multiple, self.min_width)

    @property
    def parsed(self) -> dict[str, Limit]:
        """Name of each limited metric -> its limit."""
        return {
            metric_name(key): parse_limit(value, f"budget.{metric_name(key)}", METRICS.find(key, "budget").unit)
            for key, value in self.limits.items()
        }

    @property
    def label(self) -> float | str:
        """The budget in reports: the limit on MACs if it is the only one, else all limits as text."""
        limits = {name: limit.value for name, limit in self.parsed.items()}
        return limits["macs"] if list(limits) == ["macs"] else ",".join(f"{n}={v:g}" for n, v in limits.items())

    def as_record(self) -> dict[str, Any]:
        """The budget in plain JSON types: limits by name, `channel_multiple` and `min_width`."""
        named = {metric_name(key): value for key, value in self.limits.items()}
        return named | {"channel_multiple": self.channel_multiple, "min_width": self.min_width}

    def on(self, graph: Prunable, original: Prunable | None = None) -> BoundBudget:
        """Bind the budget to a traced network.

        Args:
            graph: The traced network.
            original: The network that shares refer to, if the traced one was pruned from it; None: the traced one.

        Raises:
            UserError: A limit exceeds the dense cost, the smallest network does not meet a limit, a metric fails, or
                `channel_multiple` is "auto": nothing has been measured yet.
        """
        if not isinstance(getattr(graph, "ranges", None), WidthRanges):
            raise UserError(f"graph is {shown(graph)}: expected a traced network, see gnnrl_lightning.trace")
        if NONZERO not in self.parsed and bool((graph.sets == 0).any()):
            raise UserError(
                "groups.masks needs budget.nonzero, for example nonzero: 0.2: nothing else limits the masks"
            )
        if self.channel_multiple == AUTO:
            raise UserError(
                "budget.channel_multiple is auto, which jobs measure: give a number, or see "
                "gnnrl_lightning.speed.alignment.align"
            )
        allowed = AllowedWidths(graph.widths, graph.sets, self.channel_multiple, self.min_width, graph.ranges)
        if self.min_width == 0:
            found = graph.removable.but(graph.ranges.stays)
            allowed = replace(allowed, removable=found.groups, useless=found.useless)
        keys = {name: name for name in SHOWN} | {metric_name(key): key for key in self.limits}
        metrics = {name: graph.cost_of(key) for name, key in keys.items()}
        ends = {name: _ends(name, cost, allowed) for name, cost in metrics.items()}
        if original is not None:
            whole = {name: original.cost_of(key)(original.widths).item() for name, key in keys.items()}
            ends = {name: (whole[name], smallest) for name, (_, smallest) in ends.items()}
        limits = {}
        for name, limit in self.parsed.items():
            dense, smallest = ends[name]
            limits[name] = _absolute(name, limit, dense, smallest)
        monotone = frozenset(name for name, key in keys.items() if METRICS.find(key).monotone)
        dense_costs = {name: dense for name, (dense, _) in ends.items()}
        return BoundBudget(graph, self, allowed, keys, metrics, limits, dense_costs, monotone, original)


def _ends(name: str, cost: Cost, allowed: AllowedWidths) -> tuple[float, float]:
    """Cost of the dense and of the lowest widths, validated because the metric may be custom."""
    widths = torch.stack([allowed.dense, allowed.lowest])
    try:
        given = cost(widths)
        found = torch.as_tensor(given)
    except Exception as error:  # a custom metric may raise anything
        raise UserError(
            f"metric {name} fails: {one_line(error)}; expected the costs of widths (..., groups)"
        ) from error
    if not isinstance(given, Tensor):
        raise UserError(f"metric {name} gives a {type(given).__name__}: expected a tensor (2,) for two candidates")
    if found.shape != (2,):
        raise UserError(f"metric {name} gives the shape {tuple(found.shape)} for two candidates: expected (2,)")
    if not bool(found.isfinite().all()) or bool((found < 0).any()) or not found[0] > 0:
        raise UserError(f"metric {name} gives {found.tolist()}: expected finite costs, the dense one above 0")
    return found[0].item(), found[1].item()


def _absolute(name: str, limit: Limit, dense: float, smallest: float) -> float:
    """Convert a limit to an absolute one."""
    if not limit.relative and limit.value > dense:
        raise UserError(
            f"budget.{name} is {limit.value:g}, more than the dense network has ({as_text(dense)}): expected less"
        )
    absolute = limit.of(dense)
    if smallest > absolute:
        measured = name in METRICS and METRICS[name].measured
        given = f"{limit.value:g} ({as_text(absolute)})" if limit.relative else f"{limit.value:g}"
        share = "" if limit.relative or measured or limit.value > 100 else f", or {limit.value:g}% for a share"
        raise UserError(
            f"budget.{name} is {given}, which cannot be reached: the smallest network has {as_text(smallest)} "
            f"{METRICS[name].unit if measured else name} ({smallest / dense:.4f} of the dense one); give a larger "
            f"limit{share}"
        )
    return absolute


@dataclass(frozen=True, repr=False)
class BoundBudget:
    """A budget bound to a traced network; made by `Budget.on`.

    Attributes:
        graph: The traced network.
        budget: The budget.
        allowed: The allowed widths of each group.
        metrics: Name -> metric as given, for all reported metrics: MACs, parameters, and the limited ones.
        functions: Name -> cost as a function of the widths.
        limits: Metric -> absolute limit.
        dense: Metric -> cost of the dense network, which shares and ratios refer to.
        monotone: Names of the metrics that never rise when a group is narrowed.
        original: The dense network, if the traced one was pruned from it; None: the traced one is dense.
    """

    graph: Prunable
    budget: Budget
    allowed: AllowedWidths
    metrics: Mapping[str, Any]
    functions: Mapping[str, Cost]
    limits: Mapping[str, float]
    dense: Mapping[str, int | float]
    monotone: frozenset[str]
    original: Prunable | None = None

    def __repr__(self) -> str:
        parts = (f"{name} <= {as_text(limit)} of {as_text(self.dense[name])}" for name, limit in self.limits.items())
        return f"BoundBudget({', '.join(parts)})"

    @property
    def label(self) -> float | str:
        """The budget in reports, see `Budget.label`."""
        return self.budget.label

    @property
    def smallest(self) -> Tensor:
        """The lowest allowed widths `(G,)`."""
        return self.allowed.lowest

    def share(self, name: str) -> float:
        """The limit on a metric as a share of the dense network's cost; 1 without a limit."""
        return self.limits[name] / self.dense[name] if name in self.limits else 1.0

    def costs(self, widths: Tensor) -> dict[str, int | float]:
        """Metric -> cost of a candidate `(G,)`."""
        widths = as_whole(widths, len(self.allowed.dense))
        return {name: cost(widths).item() for name, cost in self.functions.items()}

    def ratios(self, costs: Mapping[str, int | float]) -> dict[str, float]:
        """`<metric>_ratio` -> cost of a candidate relative to the dense network's."""
        return {f"{name}_ratio": cost / self.dense[name] for name, cost in costs.items()}

    def met(self, widths: Tensor, limits: Limits | None = None) -> Tensor:
        """Which candidates `(..., G)` meet the budget, or other absolute limits, and the ranges of the groups.

        Returns:
            bool `(...)`.
        """
        widths = as_proposals(widths, len(self.allowed.dense))
        met = fits(self.functions, widths, self.limits if limits is None else limits)
        return met & self.allowed.hold(widths)

    def project(self, widths: Tensor, limits: Limits | None = None) -> Tensor:
        """The widths nearest to proposals `(G,)` or `(B, G)` that meet the budget, or other absolute limits."""
        widths = as_proposals(widths, len(self.allowed.dense))
        batch = widths if widths.dim() > 1 else widths[None]
        limits = self.limits if limits is None else limits
        monotone = self.monotone.issuperset(limits)
        return project(self.functions, self.allowed, batch, limits, monotone).reshape(widths.shape)

    def with_limits(self, **limits: float | str | None) -> BoundBudget:
        """The same budget with other limits on some metrics, see `Budget.with_limits`."""
        return self.bind(self.budget.with_limits(**limits))

    def bind(self, budget: Budget) -> BoundBudget:
        """Bind another budget to the same network; its shares refer to the same dense network."""
        return budget.on(self.graph, self.original)

    def on(self, graph: Prunable) -> BoundBudget:
        """Bind the same budget to the same network with another model of its latency."""
        return self.budget.on(graph, self.original)
