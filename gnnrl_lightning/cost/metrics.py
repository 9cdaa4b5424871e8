"""What a candidate may cost: a table of metrics, each a function of the widths.

A metric of your own is a function that takes a traced network and gives one from widths `(..., G)` to costs `(...)`.
Name it in a budget by its import path, or register it under a short name:

METRICS.register("energy", Metric(energy, unit="J"))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from torch import Tensor

from gnnrl_lightning.cost.activations import peak_activations
from gnnrl_lightning.registry import Registry

Cost: TypeAlias = Callable[[Tensor], Tensor]
"""Widths `(..., G)` int64 -> costs `(...)`, integers or float64; the same for the same widths, whenever it is asked."""


@dataclass(frozen=True)
class Metric:
    """A cost of a network, as a function of its widths.

    Args:
        bind: Makes the cost of a traced network (`ComputationGraph`); called once for each network.
        unit: Unit of the cost, for people and for limits such as `20 ms`.
        exact: Whether the cost is exact; else it is an estimate or a measurement.
        monotone: Whether the cost never rises when a group is narrowed. Projection is quicker then.
        of_operators: Makes the cost of each operator, widths `(B, G)` -> `(B, n_operators)`, for the state of a policy;
            None: the cost is not a sum over operators.
    """

    bind: Callable[[Any], Cost]
    unit: str = ""
    exact: bool = False
    monotone: bool = False
    of_operators: Callable[[Any], Cost] | None = None


def as_metric(given: Any) -> Metric:
    """The metric of what a user gives.

    Raises:
        TypeError: It is neither a metric nor a function.
    """
    if isinstance(given, Metric):
        return given
    if callable(given):
        return Metric(cast(Callable[[Any], Cost], given))
    raise TypeError(f"expected a Metric, or a function of a traced network that gives one of widths, not {given!r}")


def metric_name(given: Any) -> str:
    """Name of a metric in figures: its name or import path, or the name of its function."""
    if isinstance(given, Metric):
        return metric_name(given.bind)
    return given if isinstance(given, str) else getattr(given, "__name__", type(given).__name__)


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
METRICS.register("activations", Metric(peak_activations, unit="bytes", exact=True, monotone=True))

SHOWN = ("macs", "params")
"""Metrics that figures always have; those that a budget names follow them."""
