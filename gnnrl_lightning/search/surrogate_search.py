"""Model-based search with the surrogate: Thompson sampling among variations of the best candidates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.search.variations import ask_maximisers, first_variations, variations
from gnnrl_lightning.seeds import generator_for
from gnnrl_lightning.surrogate.model import Prior, Surrogate, flat_prior
from gnnrl_lightning.surrogate.terms import Terms


@dataclass(frozen=True)
class SurrogateSearch:
    """Score the starting candidates, random ones, and then the maximisers of functions drawn from the posterior.

    Args:
        random: Random candidates before the first round.
        spread: Standard deviation of their log keep ratios.
        draws: Functions drawn in a round.
        parents: Best candidates that are varied.
        variations: Variations of them, in a round.
        name: Proposer of its candidates.
    """

    random: int = 16
    spread: float = 0.3
    draws: int = 3
    parents: int = 6
    variations: int = 2000
    name: str = "surrogate"

    def __call__(self, problem: SearchProblem, seed: int) -> None:
        """Score the starting candidates, then run rounds until no evaluations, or no new candidates, are left."""
        problem.start(from_sensitivity=True)
        if problem.left and self.random:
            for widths in first_variations(problem, min(self.random, problem.left), self.spread, generator_for(seed)):
                problem.ask(widths, self.name)
        terms = Terms(problem.graph, problem.sensitivity.of_groups)
        prior = self.prior(problem, terms)
        number = 0
        while problem.left:
            number += 1
            generator = generator_for(seed, number)
            pool = variations(problem, self.parents, self.variations, generator)
            if not len(pool):
                return  # everything near the best candidates is known
            ask_maximisers(problem, pool, self._functions(problem, terms, prior, pool, generator), self.name)

    def prior(self, problem: SearchProblem, terms: Terms) -> Prior:
        """The prior of the network."""
        return flat_prior(terms)

    def _functions(
        self, problem: SearchProblem, terms: Terms, prior: Prior, pool: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Functions drawn from the posterior, and its mean, at the candidates of a pool: `(draws + 1, n)` rewards."""
        scored = problem.ranked()
        widths = torch.tensor([item.widths for item in scored])
        losses = -torch.tensor([item.merit[0] for item in scored], dtype=torch.float64)
        surrogate = Surrogate(terms, prior, widths, losses)
        return -torch.cat([surrogate.draw(self.draws, generator)(pool), surrogate.mean(pool)[None]])
