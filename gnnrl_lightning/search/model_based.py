"""Model-based search: what the methods with a model of the rewards share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.search.variations import ask_maximisers, first_count, first_variations, variations
from gnnrl_lightning.seeds import generator_for

Functions = Callable[[Tensor, torch.Generator], Tensor]
"""`(pool (n, G), generator) -> rewards (S, n)` by S functions."""


@dataclass(frozen=True)
class ModelBasedSearch(ABC):
    """Thompson sampling among variations of the best candidates.

    The starting candidates and `random` variations of the best one are scored first. Then each round scores the
    maximisers of `draws` functions drawn from the posterior, and that of its mean, among variations of the best ones.

    Args:
        name: Proposer of its candidates.
        random: Random candidates before the first round; None: as many as the agent scores, see `first_count`.
        spread: Standard deviation of their log keep ratios.
        draws: Functions drawn in a round.
        parents: Best candidates that are varied.
        variations: Variations of them, in a round.
    """

    name: str
    random: int | None = 16
    spread: float = 0.3
    draws: int = 3
    parents: int = 6
    variations: int = 2000

    def __call__(self, problem: SearchProblem, seed: int) -> None:
        """Score the starting candidates, then run rounds until no evaluations, or no new candidates, are left."""
        problem.start(from_sensitivity=True)
        count = min(first_count(problem) if self.random is None else self.random, problem.left)
        if count:
            best = torch.tensor(problem.ranked()[0].widths)
            for widths in first_variations(problem, best, count, self.spread, generator_for(seed)):
                problem.ask(widths, self.name)
        self.improve(problem, seed)

    def improve(self, problem: SearchProblem, seed: int) -> None:
        """Run rounds from what has been scored, until no evaluations, or no new candidates, are left."""
        number, functions = 0, self.model(problem)
        while problem.left:
            number += 1
            generator = generator_for(seed, number)
            pool = variations(problem, self.parents, self.variations, generator)
            if not len(pool):
                return  # everything near the best candidates is known
            ask_maximisers(problem, pool, functions(pool, generator), self.name)

    @abstractmethod
    def model(self, problem: SearchProblem) -> Functions:
        """Return what predicts rewards from all evaluations so far: `draws` functions, and the posterior's mean."""
