"""Candidates without whole groups: fewer layers, and the others wider for it.

The sensitivity of each group alone does not tell what that is worth: a network without nine of its 27 blocks is better
than dynamic programming's at the same MACs, which removes none (`experiments/results/README.md`, *Whole groups*).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.search.knapsack import dynamic_programming
from gnnrl_lightning.surrogate.sensitivity import Sensitivity


def without_least(number: int, widths: Tensor, limits: BoundBudget, sensitivity: Sensitivity) -> Tensor:
    """Widths without the groups that lose least alone, the others in proportion, as wide as the budget allows.

    Args:
        number: Number of groups to remove, of those that may go.
        widths: Widths `(G,)` of the others, in proportion.
        limits: A budget under which groups may go.
        sensitivity: Losses per group.

    Returns:
        int64 `(G,)`.
    """
    removable = limits.allowed.removable
    assert removable is not None, "under this budget, no group may go"
    losses = sensitivity.of_groups(torch.zeros_like(widths)).where(removable, torch.inf)
    gone = losses.argsort(stable=True)[: min(number, int(removable.sum()))]
    return limits.project(widths.index_fill(0, gone, 0))


def planned_without(number: int, graph: ComputationGraph, limits: BoundBudget, sensitivity: Sensitivity) -> Tensor:
    """The same in proportion to the widths of dynamic programming, see `without_least`."""
    return without_least(number, dynamic_programming(graph, limits, sensitivity), limits, sensitivity)
