"""Variations of the best candidates: what a model-based search looks through."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.search.problem import SearchProblem

NARROWEST, WIDEST = 0.05, 0.45
"""Range of the standard deviation of a variation's log keep ratios."""

TOGGLED = 0.5
"""Share of the variations with another set of whole groups, if groups may go."""

FIRST, SPREAD = 12, 0.3
"""Variations of the best starting candidate that are scored first if whole groups may go, and standard deviation of
their log keep ratios.

The losses of single groups, from which the surrogate starts, say little about networks without some of them.
"""


def parents_among(ranked: Tensor, count: int) -> Tensor:
    """Which candidates to vary, `(m,)` int64, m at most count: the best ones, some of them with other groups absent.

    Widths are improved step by step, and sets of groups are not: what is best now may lack the wrong ones.

    Args:
        ranked: Different candidates `(n, G)`, best first.
        count: Number of candidates to choose; half of them for their set of groups, if the best third has so many sets.
    """
    sets = dict[tuple[bool, ...], int]()
    for number, row in enumerate((ranked[: math.ceil(len(ranked) / 3)] == 0).tolist()):
        sets.setdefault(tuple(row), number)
    others = list(sets.values())[1 : 1 + count // 2]
    best = [number for number in range(len(ranked)) if number not in others][: count - len(others)]
    return torch.tensor(best + others, dtype=torch.int64)


def variations(problem: SearchProblem, parents: int, count: int, generator: torch.Generator) -> Tensor:
    """Distinct candidates `(n, G)` near the best ones that have not been scored; at most `count`.

    Args:
        problem: The search problem.
        parents: Number of candidates that are varied, see `parents_among`.
        count: Number of variations to draw.
        generator: Of the draws.
    """
    ranked = torch.tensor([item.widths for item in problem.ranked()])
    return problem.unseen(variations_of(problem, ranked[parents_among(ranked, parents)], count, generator))


def variations_of(
    problem: SearchProblem, parents: Tensor, count: int, generator: torch.Generator, macs: float | None = None
) -> Tensor:
    """Candidates `(count, G)` near others, which may be there twice or have been scored.

    A variation multiplies the keep ratios of some groups of one parent by log-normal factors. If whole groups may go,
    half of the variations also lack one more of them, or have one back.

    Args:
        problem: The search problem.
        parents: The candidates that are varied `(n, G)`.
        count: Number of variations to draw.
        generator: Of the draws.
        macs: Limit in place of the budget's, see `SearchProblem.project`.
    """
    best = parents.double()
    shape = count, best.shape[1]
    chosen = best[torch.randint(len(best), (count,), generator=generator)]
    spread = NARROWEST + (WIDEST - NARROWEST) * torch.rand(count, 1, generator=generator, dtype=torch.float64)
    share = torch.rand(count, 1, generator=generator).clamp(min=2 / best.shape[1])
    changed = torch.rand(shape, generator=generator) < share
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    varied = _toggled(problem, chosen * (spread * noise * changed).exp(), generator)
    return problem.project(varied, macs)


def _toggled(problem: SearchProblem, widths: Tensor, generator: torch.Generator) -> Tensor:
    """Proposals `(n, G)` of which a share removes one of the groups that may go, or takes one back.

    One that comes back has any keep ratio, drawn in its logarithm.
    """
    removable = problem.limits.allowed.removable
    if removable is None or not bool(removable.any()):
        return widths
    places = removable.nonzero()[:, 0]
    rows = (torch.rand(len(widths), generator=generator) < TOGGLED).nonzero()[:, 0]
    groups = places[torch.randint(len(places), (len(rows),), generator=generator)]
    back = problem.graph.widths[groups] ** torch.rand(len(rows), generator=generator, dtype=torch.float64)
    toggled = widths.clone()
    toggled[rows, groups] = torch.where(widths[rows, groups] < 1, back, 0.0)
    return toggled


def first_count(problem: SearchProblem) -> int:
    """Number of candidates for `first_variations`: 0 where all groups stay, else at most a sixth of all evaluations."""
    return 0 if problem.limits.allowed.removable is None else min(FIRST, problem.evaluations // 6)


def first_variations(
    problem: SearchProblem,
    centre: Tensor,
    count: int,
    spread: float,
    generator: torch.Generator,
    macs: float | None = None,
) -> Tensor:
    """Distinct candidates `(n, G)` around another one that have not been scored; at most `count`.

    Args:
        problem: The search problem.
        centre: The other candidate `(G,)`.
        count: Number of candidates.
        spread: Standard deviation of their log keep ratios.
        generator: Of the draws.
        macs: Limit in place of the budget's, see `SearchProblem.project`.
    """
    noise = torch.randn(4 * count, len(centre), generator=generator, dtype=torch.float64)
    varied = problem.project(centre.double() * (spread * noise).exp(), macs)
    return problem.new(varied, min(count, len(problem.unseen(varied))))


def ask_maximisers(problem: SearchProblem, pool: Tensor, functions: Tensor, proposer: str) -> list[Evaluation]:
    """Score the best candidate of a pool `(n, G)` by each of some functions `(S, n)`, each candidate once."""
    taken: dict[int, Evaluation] = {}
    for function in functions:
        order = function.argsort(descending=True, stable=True).tolist()
        best = next((place for place in order if place not in taken), None)
        if best is None or not problem.left:
            break
        taken[best] = problem.ask(pool[best], proposer)
    return list(taken.values())
