"""Variations of the best candidates: what a model-based search looks through."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnrl_lightning.cost.ranges import positive
from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.search.problem import SearchProblem

NARROWEST, WIDEST = 0.05, 0.45
"""Range of the standard deviation of a variation's log keep ratios."""


def variations(problem: SearchProblem, parents: int, count: int, generator: torch.Generator) -> Tensor:
    """Distinct candidates `(n, G)` near the best ones that have not been scored; at most `count`.

    A variation multiplies the keep ratios of some groups of one parent by log-normal factors.

    Args:
        problem: The search problem.
        parents: Number of best candidates that are varied.
        count: Number of variations to draw.
        generator: Of the draws.
    """
    best = positive(torch.tensor([item.widths for item in problem.ranked()[:parents]], dtype=torch.float64))
    shape = count, best.shape[1]
    chosen = best[torch.randint(len(best), (count,), generator=generator)]
    spread = NARROWEST + (WIDEST - NARROWEST) * torch.rand(count, 1, generator=generator, dtype=torch.float64)
    share = torch.rand(count, 1, generator=generator).clamp(min=2 / best.shape[1])
    changed = torch.rand(shape, generator=generator) < share
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    return unseen(problem, problem.project(chosen * (spread * noise * changed).exp()))


def first_variations(problem: SearchProblem, count: int, spread: float, generator: torch.Generator) -> Tensor:
    """Distinct candidates `(n, G)` around the best one so far that have not been scored; at most `count`.

    Args:
        problem: The search problem.
        count: Number of candidates.
        spread: Standard deviation of their log keep ratios.
        generator: Of the draws.
    """
    centre = positive(torch.tensor(problem.ranked()[0].widths, dtype=torch.float64))
    noise = torch.randn(4 * count, len(centre), generator=generator, dtype=torch.float64)
    varied = problem.project(centre * (spread * noise).exp())
    return problem.new(varied, min(count, len(unseen(problem, varied))))


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


def unseen(problem: SearchProblem, widths: Tensor) -> Tensor:
    """The distinct candidates among `(n, G)` that have not been scored."""
    distinct = widths.unique(dim=0)
    known = {item.widths for item in problem.history}
    return distinct[[tuple(row) not in known for row in distinct.tolist()]]
