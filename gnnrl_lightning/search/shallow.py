"""Candidates without whole groups: fewer layers, and the others wider for it.

The sensitivity of each group alone does not tell what that is worth: a network without nine of its 27 blocks is better
than dynamic programming's at the same MACs, which removes none (`experiments/results/latency.md`, *Whole groups*).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.search.knapsack import dynamic_programming
from gnnrl_lightning.surrogate.sensitivity import Sensitivity


def without_least(number: int, widths: Tensor, limits: BoundBudget, sensitivity: Sensitivity) -> Tensor:
    """Widths without the groups that lose least alone, the others in proportion, as wide as the budget allows.

    Args:
        number: Number of groups to remove, of those that may go and are present.
        widths: Widths `(G,)` of the others, in proportion.
        limits: A budget under which groups may go.
        sensitivity: Losses per group.

    Returns:
        int64 `(G,)`.
    """
    present = _present(widths, limits)
    losses = sensitivity.of_groups(torch.zeros_like(widths)).where(present, torch.inf)
    gone = losses.argsort(stable=True)[: min(number, int(present.sum()))]
    return limits.project(widths.index_fill(0, gone, 0))


def planned_without(share: float, graph: ComputationGraph, limits: BoundBudget, sensitivity: Sensitivity) -> Tensor:
    """The same in proportion to the widths of dynamic programming, without a share of the groups that it has left."""
    widths = dynamic_programming(graph, limits, sensitivity)
    return without_least(math.ceil(share * int(_present(widths, limits).sum())), widths, limits, sensitivity)


def _present(widths: Tensor, limits: BoundBudget) -> Tensor:
    """Which groups may go and have not gone, bool `(G,)`."""
    removable = limits.allowed.removable
    assert removable is not None, "under this budget, no group may go"
    return removable & (widths > 0)
