"""Cost metrics: a table of functions of the widths.

A custom metric is a function that takes a traced network and returns a function from widths `(..., G)` to costs
`(...)`. A budget names it by its import path, or by a short name after registration:

METRICS.register("energy", Metric(energy, unit="J"))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from torch import Tensor

from gnnrl_lightning.cost.activations import peak_activations
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.registry import Registry

Cost: TypeAlias = Callable[[Tensor], Tensor]
"""Widths `(..., G)` int64 -> costs `(...)`, integers or float64; deterministic."""


@dataclass(frozen=True)
class Metric:
    """A cost of a network as a function of its widths.

    Args:
        bind: Returns the cost function of a traced network (`ComputationGraph`); called once per network.
        unit: Unit of the cost, for output and for limits such as `20 ms`.
        exact: Whether the cost is exact rather than estimated or measured.
        monotone: Whether the cost never rises when a group is narrowed; projection is then faster.
        measured: Whether a traced network has it only after a measurement; a job measures what its budget limits.
        masked: Whether only networks with masked weights have it.
        of_operators: Returns the function for the costs of all operators, widths `(B, G)` -> `(B, n_operators)`, which
            the state of a policy reads; None: the cost is not a sum over operators.
    """

    bind: Callable[[Any], Cost]
    unit: str = ""
    exact: bool = False
    monotone: bool = False
    measured: bool = False
    masked: bool = False
    of_operators: Callable[[Any], Cost] | None = None


def as_metric(given: Any) -> Metric:
    """Return a metric unchanged, or make one from a function.

    Raises:
        TypeError: `given` is neither a metric nor a function.
    """
    if isinstance(given, Metric):
        return given
    if callable(given):
        return Metric(cast(Callable[[Any], Cost], given))
    raise TypeError(f"expected a Metric, or a function of a traced network that gives one of widths, not {given!r}")


def metric_name(given: Any) -> str:
    """Name of a metric in reports: its name or import path, or the name of its function."""
    if isinstance(given, Metric):
        return metric_name(given.bind)
    return given if isinstance(given, str) else getattr(given, "__name__", type(given).__name__)


def bound(given: Any, graph: Any) -> Cost:
    """Return the cost function of a traced network.

    Args:
        given: Name of `METRICS`, import path, or metric.
        graph: The network, a `ComputationGraph`.

    Raises:
        UserError: The metric is unknown, or fails.
    """
    metric = METRICS.find(given)
    expected = "a function of a traced network that returns a function of widths (..., groups)"
    with METRICS.calling(metric, metric_name(given), expected):
        return metric.bind(graph)


def _nonzero(graph: Any) -> Cost:
    """Number of parameters that no mask sets to zero.

    Raises:
        UserError: No weight is masked.
    """
    if not graph.masks:
        raise UserError("budget.nonzero limits masked weights, and there are none: give layers in groups.masks")
    return graph.cost.nonzero


METRICS: Registry[Metric] = Registry("metric", as_metric)
"""Name -> metric."""

METRICS.register(
    "macs",
    Metric(
        lambda graph: graph.cost.macs,
        unit="MACs",
        exact=True,
        monotone=True,
        of_operators=lambda graph: graph.cost.operator_macs,
    ),
)
METRICS.register(
    "params",
    Metric(
        lambda graph: graph.cost.params,
        unit="parameters",
        exact=True,
        monotone=True,
        of_operators=lambda graph: graph.cost.operator_params,
    ),
)
NONZERO = "nonzero"
"""The metric that limits masked weights."""

METRICS.register(NONZERO, Metric(_nonzero, unit="parameters", exact=True, monotone=True, masked=True))
METRICS.register("activations", Metric(peak_activations, unit="bytes", exact=True, monotone=True))
LATENCY = "latency"
"""The metric that is measured."""

METRICS.register(
    LATENCY,
    Metric(
        lambda graph: graph.latency,
        unit="ms",
        monotone=True,
        measured=True,
        of_operators=lambda graph: graph.latency.operators,
    ),
)

SHOWN = ("macs", "params")
"""Metrics that are always reported, before the other metrics of the budget."""


def as_text(cost: float) -> str:
    """Format a cost: counts with all digits, fractions of a unit with four."""
    return f"{cost:,.0f}" if cost >= 1000 or cost == int(cost) else f"{cost:.4g}"
