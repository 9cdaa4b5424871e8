"""Greedy allocation: narrow, step by step, the group where that costs least for what it saves."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.surrogate.sensitivity import Sensitivity


def greedy(graph: ComputationGraph, limits: BoundBudget, sensitivity: Sensitivity) -> Tensor:
    """Widths from the dense ones (or the user's highest) down, by the sensitivity's loss for each MAC saved.

    In each step the group g is narrowed by one allowed width for which

        (loss_g(narrower) - loss_g(now)) / (share of the limit that it saves)

    is smallest (ties: the first), until the budget is met; then the projection fills it up. Of several limits, what is
    saved counts for those that are not met yet. Where no group alone saves anything (a peak that several groups share,
    a measured cost), the one is narrowed whose loss rises least.

    Args:
        graph: The traced network.
        limits: What the candidate may cost.
        sensitivity: Losses of the groups.

    Returns:
        int64 `(G,)`.
    """
    ladder, costs = limits.ladder, limits.functions
    groups = torch.arange(len(graph.groups))
    widths = ladder.highest.clone()
    while True:
        over = {name: limit for name, limit in limits.limits.items() if costs[name](widths) > limit}
        if not over:
            return limits.project(widths)
        narrower = ladder.down(widths - 1)
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
