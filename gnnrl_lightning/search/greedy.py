"""Greedy allocation: narrow, step by step, the group where that costs least for what it saves."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.surrogate.sensitivity import Sensitivity


def greedy(graph: ComputationGraph, budget: Budget, sensitivity: Sensitivity) -> Tensor:
    """Widths from the dense ones (or the user's highest) down, by the sensitivity's loss for each MAC saved.

    In each step the group g is narrowed by one allowed width for which

        (loss_g(narrower) - loss_g(now)) / (share of the limit that it saves)

    is smallest (ties: the first), until the budget is met; then the projection fills it up. Of several limits, what is
    saved counts for those that are not met yet.

    Args:
        graph: The traced network.
        budget: What the candidate may cost.
        sensitivity: Losses of the groups.

    Returns:
        int64 `(G,)`.
    """
    ladder, limits = budget.ladder(graph), budget.limits(graph)
    costs = {"macs": graph.cost.macs, "params": graph.cost.params}
    groups = torch.arange(len(graph.groups))
    widths = ladder.highest.clone()
    while True:
        over = {name: limit for name, limit in limits.items() if int(costs[name](widths)) > limit}
        if not over:
            return budget.project(graph, widths)
        narrower = ladder.down(widths - 1)
        rows = widths.repeat(len(widths), 1)
        rows[groups, groups] = narrower
        saved = sum(
            ((costs[name](widths) - costs[name](rows)).double() / limit for name, limit in over.items()),
            torch.zeros(len(widths), dtype=torch.float64),
        )
        price = (sensitivity.of_groups(narrower) - sensitivity.of_groups(widths)) / saved
        price[(narrower == widths) | (saved <= 0)] = torch.inf
        group = int(price.argmin())
        widths[group] = narrower[group]
