"""Baselines that choose widths cheaply; they are also the starting candidates of every search."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.search.greedy import greedy
from gnnrl_lightning.search.knapsack import dynamic_programming
from gnnrl_lightning.search.shallow import planned_without
from gnnrl_lightning.surrogate.sensitivity import Sensitivity

Baseline = Callable[[ComputationGraph, BoundBudget], Tensor]
"""`(graph, limits) -> widths (G,)` within the budget."""


def uniform(graph: ComputationGraph, limits: BoundBudget) -> Tensor:
    """The same keep ratio for every group."""
    return limits.project(graph.widths)


def tapered(towards_output: float) -> Baseline:
    """Keep ratios that change linearly from the first group of channels to the last; masked weights have their mean.

    Args:
        towards_output: Ratio of the last group's keep ratio to the first group's, before the projection.
    """

    def propose(graph: ComputationGraph, limits: BoundBudget) -> Tensor:
        channels = int((graph.sets > 0).sum())
        ramp = torch.linspace(1.0, towards_output, channels, dtype=torch.float64)
        masks = torch.full((len(graph.groups) - channels,), (1 + towards_output) / 2, dtype=torch.float64)
        return limits.project(graph.widths * (torch.cat([ramp, masks]) / max(1.0, towards_output)))

    return propose


def streams_kept(graph: ComputationGraph, limits: BoundBudget) -> Tensor:
    """Narrow groups with a single producer first, and shared groups only if the budget still is not met.

    Many layers share a residual stream, so each of its channels costs more and carries more information.
    """
    producers = torch.tensor([sum(member.role == "output" for member in group.members) for group in graph.groups])
    inner = (producers <= graph.sets.clamp(min=1)).double()
    floor, top = limits.allowed.lowest.double(), limits.allowed.highest.double()
    widths = top
    for share in torch.linspace(1.0, 0.0, 101, dtype=torch.float64).tolist():
        widths = torch.where(inner > 0, floor + share * (top - floor), top)
        if limits.met(widths.floor().long()):
            break
    return limits.project(widths)


STARTING: dict[str, Baseline] = {
    "uniform": uniform,
    "tapered_up": tapered(2.0),
    "tapered_down": tapered(0.5),
    "streams_kept": streams_kept,
}
"""Name -> baseline of the candidates that every search scores first."""


def starting_candidates(graph: ComputationGraph, limits: BoundBudget) -> dict[str, Tensor]:
    """Name -> widths `(G,)` of the starting candidates."""
    return {name: propose(graph, limits) for name, propose in STARTING.items()}


Allocation = Callable[[ComputationGraph, BoundBudget, Sensitivity], Tensor]
"""`(graph, limits, sensitivity) -> widths (G,)` within the budget."""

FROM_SENSITIVITY: dict[str, Allocation] = {"greedy": greedy, "dynamic_programming": dynamic_programming}
"""Name -> allocation of the candidates that a search with a sensitivity scores next."""


SHALLOW = {"without_a_sixth": 1 / 6, "without_a_third": 1 / 3, "without_a_half": 1 / 2}
"""Name -> share of the groups that further candidates are without, of those that may go and that dynamic programming
has left, rounded up."""


def _allocations(limits: BoundBudget) -> dict[str, Allocation]:
    """The allocations of a budget, each without another number of groups, if dynamic programming leaves all of them."""
    removable = limits.allowed.removable
    count, shares = 0 if removable is None else int(removable.sum()), dict[int, str]()
    for name, share in SHALLOW.items() if count else ():
        shares.setdefault(math.ceil(share * count), name)
    return FROM_SENSITIVITY | {name: partial(planned_without, SHALLOW[name]) for name in shares.values()}


def allocation_candidates(graph: ComputationGraph, limits: BoundBudget, sensitivity: Sensitivity) -> dict[str, Tensor]:
    """Name -> widths `(G,)` of the starting candidates derived from a sensitivity, those without groups only once."""
    found = dict[str, Tensor]()
    for name, propose in _allocations(limits).items():
        widths = propose(graph, limits, sensitivity)
        if name not in SHALLOW or not any(torch.equal(widths, other) for other in found.values()):
            found[name] = widths
    return found


def starting_count(from_sensitivity: bool, limits: BoundBudget) -> int:
    """Largest number of starting candidates: dynamic programming may leave few groups for others to be without.

    Args:
        from_sensitivity: Whether to count the candidates derived from the sensitivity.
        limits: The budget, bound to the graph.
    """
    return len(STARTING) + (len(_allocations(limits)) if from_sensitivity else 0)
