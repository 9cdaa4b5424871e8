"""The allocation of least loss by the sensitivity: dynamic programming over groups on discretised costs."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.cost.projection import Ladder
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.search.greedy import greedy
from gnnrl_lightning.surrogate.sensitivity import Sensitivity

LEVELS = 64
"""Widths of a group that are considered at most, evenly spaced among the allowed ones."""


def dynamic_programming(
    graph: ComputationGraph, limits: BoundBudget, sensitivity: Sensitivity, bins: int = 2000, rounds: int = 10
) -> Tensor:
    """Widths of the least total loss by the sensitivity, within the budget.

    MACs are bilinear in the widths, so a knapsack's costs, one for each group, hold around a candidate w only:

        cost(v) ~ cost(w) + sum_g [cost(w with v_g in place of w_g) - cost(w)].

    The knapsack is solved around a candidate, its solution is projected onto the budget, and so on around that one,
    until a candidate comes back; this is done from the uniform candidate and from the greedy one, and the projected
    candidate of the least loss is returned. Of several limits, the mean of the shares that are used up has to stay
    within 1; the projection then meets each of them.

    Args:
        graph: The traced network.
        limits: What the candidate may cost.
        sensitivity: Losses of the groups.
        bins: Parts into which what may be spent is divided; costs are rounded up to them.
        rounds: Knapsacks from each of the two at most.

    Returns:
        int64 `(G,)`.
    """
    if not len(graph.groups):
        return graph.widths.clone()
    levels = allowed_levels(limits.ladder)
    losses = [
        sensitivity.losses[group, widths.clamp(max=sensitivity.losses.shape[1] - 1)]
        for group, widths in enumerate(levels)
    ]
    best = greedy(graph, limits, sensitivity)
    for start in (limits.project(graph.widths), best):
        around, seen = start, set()
        for _ in range(rounds):
            seen.add(tuple(around.tolist()))
            costs, capacity = linearised(limits, levels, around)
            picked = knapsack(costs, losses, capacity, bins)
            widths = torch.stack([level[index] for level, index in zip(levels, picked, strict=True)])
            around = limits.project(widths)
            if float(sensitivity(around)) < float(sensitivity(best)):
                best = around
            if tuple(around.tolist()) in seen:
                break
    return best


def allowed_levels(ladder: Ladder, most: int = LEVELS) -> list[Tensor]:
    """Widths that each group may take, ascending, `most` of them at most, the lowest and the highest one included."""
    levels = []
    for group in range(len(ladder.dense)):
        lowest, step, highest = (int(part[group]) for part in (ladder.lowest, ladder.step, ladder.highest))
        widths = torch.tensor([*range(lowest, highest, step), highest])
        chosen = torch.linspace(0, len(widths) - 1, min(most, len(widths)), dtype=torch.float64).round().long()
        levels.append(widths[chosen])
    return levels


def linearised(limits: BoundBudget, levels: list[Tensor], around: Tensor) -> tuple[list[Tensor], float]:
    """Cost of each level of each group above its lowest one, around a candidate, and what may be spent.

    Costs are shares of the limit (the mean over the limits, if there are several).

    Args:
        limits: The limits.
        levels: Widths of each group, ascending.
        around: A candidate `(G,)` within the budget.

    Returns:
        For each group the costs of its levels, the first 0; and the sum that they may reach, at least 0.
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
    """One item of each group, with the least sum of losses and costs that sum to `capacity` at most.

    Costs are rounded up to `capacity / bins`: what comes back fits, and is optimal but for that rounding.

    Args:
        costs: Costs of each group's items, the first 0; what a later one may save counts as 0.
        losses: Their losses.
        capacity: What may be spent.
        bins: Parts of the capacity.

    Returns:
        The index of each group's item.
    """
    unit = max(capacity, 1e-12) / bins
    least = torch.zeros(bins + 1, dtype=torch.float64)  # least error of the groups so far, for each sum of costs
    choices = []
    weights = [torch.ceil(cost / unit - 1e-9).long().clamp(min=0) for cost in costs]
    for weight, error in zip(weights, losses, strict=True):
        options = torch.full((len(weight), bins + 1), torch.inf, dtype=torch.float64)
        for item, (cost, value) in enumerate(zip(weight.tolist(), error.tolist(), strict=True)):
            if cost <= bins:
                options[item, cost:] = least[: bins + 1 - cost] + value
        least, choice = options.min(0)
        choices.append(choice)
    spent, picked = bins, []
    for weight, choice in zip(reversed(weights), reversed(choices), strict=True):
        picked.append(int(choice[spent]))
        spent -= int(weight[picked[-1]])
    return picked[::-1]
