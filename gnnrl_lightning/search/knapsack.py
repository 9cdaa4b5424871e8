"""Allocation with the least loss according to the sensitivity: a knapsack on discretised costs."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.cost.projection import AllowedWidths
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.search.greedy import greedy
from gnnrl_lightning.surrogate.sensitivity import Sensitivity

LEVELS = 64
"""Maximum number of widths considered per group, evenly spaced among the allowed widths."""

BINS = 2000
"""Number of parts of the capacity; costs are rounded up to whole parts."""

ROUNDS = 10
"""Maximum number of knapsacks from each of the two candidates."""


def dynamic_programming(graph: ComputationGraph, limits: BoundBudget, sensitivity: Sensitivity) -> Tensor:
    """Find widths within the budget with the least total loss according to the sensitivity.

    MACs are bilinear in the widths, so the costs of a knapsack, one per group, are valid only around a candidate w:

        cost(v) ~ cost(w) + sum_g [cost(w with v_g in place of w_g) - cost(w)].

    The knapsack is solved around a candidate and its solution is projected onto the budget; this repeats around the
    projected candidate until a candidate recurs. The search runs from the uniform and from the greedy candidate, and
    returns the projected candidate with the least loss. With several limits, the knapsack limits the mean of the used
    shares to 1; the projection then meets each limit.

    Args:
        graph: The traced network.
        limits: The budget bound to the graph.
        sensitivity: Losses per group.

    Returns:
        int64 `(G,)`.
    """
    if not len(graph.groups):
        return graph.widths.clone()
    levels = allowed_levels(limits.allowed)
    losses = [
        sensitivity.losses[group, widths.clamp(max=sensitivity.losses.shape[1] - 1)]
        for group, widths in enumerate(levels)
    ]
    best = greedy(graph, limits, sensitivity)
    for start in (limits.project(graph.widths), best):
        around, seen = start, set()
        for _ in range(ROUNDS):
            seen.add(tuple(around.tolist()))
            costs, capacity = linearised(limits, levels, around)
            picked = knapsack(costs, losses, capacity, BINS)
            widths = torch.stack([level[index] for level, index in zip(levels, picked, strict=True)])
            around = limits.project(widths)
            if float(sensitivity(around)) < float(sensitivity(best)):
                best = around
            if tuple(around.tolist()) in seen:
                break
    return best


def allowed_levels(allowed: AllowedWidths, most: int = LEVELS) -> list[Tensor]:
    """At most `most` allowed widths per group, ascending, including the lowest and the highest."""
    levels = []
    for group in range(len(allowed.dense)):
        lowest, step, highest = (int(part[group]) for part in (allowed.lowest, allowed.step, allowed.highest))
        widths = torch.tensor([*range(lowest, highest, step), highest])
        chosen = torch.linspace(0, len(widths) - 1, min(most, len(widths)), dtype=torch.float64).round().long()
        levels.append(widths[chosen])
    return levels


def linearised(limits: BoundBudget, levels: list[Tensor], around: Tensor) -> tuple[list[Tensor], float]:
    """Costs of all levels relative to the lowest level of their group, around a candidate, and the capacity.

    Costs are shares of the limit (with several limits, their mean).

    Args:
        limits: The budget bound to the graph.
        levels: Widths of each group, ascending.
        around: A candidate `(G,)` within the budget.

    Returns:
        Costs of each group's levels, the first of which is 0, and the maximum of their sum, at least 0.
    """
    counts = [len(level) for level in levels]
    rows = around.repeat(sum(counts), 1)
    rows[torch.arange(sum(counts)), torch.arange(len(levels)).repeat_interleave(torch.tensor(counts))] = torch.cat(
        levels
    )
    rows = torch.cat([rows, around[None]])
    absolute = limits.limits.items()
    shares = torch.stack([limits.functions[name](rows).double() / limit for name, limit in absolute]).mean(0)
    costs = list(shares[:-1].split(counts))
    now = float(shares[-1])
    capacity = 1 - now + sum(now - float(cost[0]) for cost in costs)
    return [cost - cost[0] for cost in costs], capacity


def knapsack(costs: list[Tensor], losses: list[Tensor], capacity: float, bins: int) -> list[int]:
    """Choose one item per group with the least total loss and a total cost of at most `capacity`.

    Costs are rounded up to multiples of `capacity / bins`: the result fits, and is optimal up to that rounding.

    Args:
        costs: Costs of each group's items, the first of which is 0; negative costs count as 0.
        losses: Losses of each group's items.
        capacity: Maximum total cost.
        bins: Number of parts of the capacity.

    Returns:
        Index of the chosen item of each group.
    """
    unit = max(capacity, 1e-12) / bins
    least = torch.zeros(bins + 1, dtype=torch.float64)  # least loss of the groups so far, for each total cost
    choices = []
    weights = [torch.ceil(cost / unit - 1e-9).long().clamp(min=0) for cost in costs]
    for weight, loss in zip(weights, losses, strict=True):
        options = torch.full((len(weight), bins + 1), torch.inf, dtype=torch.float64)
        for item, (cost, value) in enumerate(zip(weight.tolist(), loss.tolist(), strict=True)):
            if cost <= bins:
                options[item, cost:] = least[: bins + 1 - cost] + value
        least, choice = options.min(0)
        choices.append(choice)
    spent, picked = bins, []
    for weight, choice in zip(reversed(weights), reversed(choices), strict=True):
        picked.append(int(choice[spent]))
        spent -= int(weight[picked[-1]])
    return picked[::-1]
