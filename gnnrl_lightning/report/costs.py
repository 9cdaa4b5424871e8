"""The costs among the figures of a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RATIO = "_ratio"
"""Suffix of a metric's name for its ratio to the dense network's cost."""


def cost_names(row: Mapping[str, Any]) -> list[str]:
    """Return the names of the metrics in a row of figures: those with a ratio to the dense network's cost."""
    return [name for name in row if f"{name}{RATIO}" in row]


def cost_figures(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the costs in a row of figures, each with its ratio to the dense network's cost."""
    return {key: row[key] for name in cost_names(row) for key in (name, f"{name}{RATIO}")}


def readable(cost: float) -> str:
    """Format a cost with four digits and a unit prefix: 40.55 M."""
    for unit, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(cost) >= unit:
            return f"{cost / unit:#.4g}{prefix}"
    return f"{cost:.4g}"
