"""The costs among the figures of a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RATIO = "_ratio"
"""What follows the name of a metric in the name of its share of the dense network's."""


def cost_names(row: Mapping[str, Any]) -> list[str]:
    """Names of the metrics in a row of figures: those that stand there with their share of the dense network's."""
    return [name for name in row if f"{name}{RATIO}" in row]


def readable(cost: float) -> str:
    """A cost with four digits and the prefix that suits it: 40.55 M."""
    for unit, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(cost) >= unit:
            return f"{cost / unit:#.4g}{prefix}"
    return f"{cost:.4g}"
