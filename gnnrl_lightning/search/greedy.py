"""Greedy allocation: in each step, narrow the group with the least loss per cost saved."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.surrogate.sensitivity import Sensitivity


def greedy(graph: ComputationGraph, limits: BoundBudget, sensitivity: Sensitivity) -> Tensor:
    """Narrow groups from their highest allowed widths, by the sensitivity's loss per cost saved.

    Each step narrows, by one allowed width, the group g for which

        (loss_g(narrower) - loss_g(now)) / (share of the limit that it saves)

    is smallest (ties: the first), until the budget is met; the projection then widens the result as far as possible.
    With several limits, only savings towards limits that are not met yet count. If no single group saves anything (a
    peak that several groups share, a measured cost), the group whose loss rises least is narrowed.

    Args:
        graph: The traced network.
        limits: The budget bound to the graph.
        sensitivity: Losses per group.

    Returns:
        int64 `(G,)`.
    """
    allowed, costs = limits.allowed, limits.functions
    groups = torch.arange(len(graph.groups))
    widths = allowed.highest.clone()
    while True:
        over = {name: limit for name, limit in limits.limits.items() if costs[name](widths) > limit}
        if not over:
            return limits.project(widths)
        narrower = allowed.down(widths - 1)
        rows = widths.repeat(len(widths), 1)
        rows[groups, groups] = narrower
        saved = sum(
            ((costs[name](widths) - costs[name](rows)).double() / limit for name, limit in over.items()),
            torch.zeros(len(widths), dtype=torch.float64),
        )
        rise, stays = sensitivity.of_groups(narrower) - sensitivity.of_groups(widths), narrower == widths
        saves = ~stays & (saved > 0)
        price = rise / saved if saves.any() else rise
        price[~saves if saves.any() else stays] = torch.inf
        group = int(price.argmin())
        widths[group] = narrower[group]
