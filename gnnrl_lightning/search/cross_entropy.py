"""Cross-entropy search: a Gaussian on keep ratios, refitted to its best samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gnnrl_lightning.cost.ranges import positive
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.seeds import generator_for

SURPLUS = 2
"""Samples drawn per scored sample; samples that were scored before are skipped."""


@dataclass(frozen=True)
class Gaussian:
    """Independent Gaussians on the logarithms of keep ratios.

    Attributes:
        mean: `(G,)` float64.
        spread: Standard deviations `(G,)` float64.
    """

    mean: Tensor
    spread: Tensor

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Keep ratios `(count, G)`, positive."""
        noise = torch.randn(count, len(self.mean), generator=generator, dtype=torch.float64)
        return (self.mean + self.spread * noise).exp()

    def towards(self, elite: Tensor, inertia: float, narrowest: float) -> Gaussian:
        """The Gaussian moved towards the moments of an elite.

        Args:
            elite: Keep ratios `(E, G)`.
            inertia: Weight of the current moments.
            narrowest: Smallest standard deviation.
        """
        logs = elite.double().log()
        mean = inertia * self.mean + (1 - inertia) * logs.mean(0)
        spread = inertia * self.spread + (1 - inertia) * logs.std(0, unbiased=False)
        return Gaussian(mean, spread.clamp(min=narrowest))


@dataclass(frozen=True)
class CrossEntropySearch:
    """Cross-entropy search from the best starting candidate; the elite is kept across rounds until it is beaten.

    Args:
        samples: Candidates per round.
        elite: Share of a round's candidates to which the Gaussian is refitted.
        sigma: Initial standard deviation of the logarithms of keep ratios.
        inertia: Weight of the previous moments when the Gaussian is refitted.
        narrowest: Smallest standard deviation.
        from_sensitivity: Whether to score the candidates derived from the sensitivity and the best of `ProxySearch`
            before the first round; the examples of the sensitivity are then charged.
        name: Proposer of its candidates.

    Source: Rubinstein, The cross-entropy method for combinatorial and continuous optimization, 1999; the kept elite
    follows Pinneri et al., https://arxiv.org/abs/2008.06389.
    """

    samples: int = 8
    elite: float = 0.5
    sigma: float = 0.5
    inertia: float = 0.3
    narrowest: float = 0.1
    from_sensitivity: bool = False
    name: str = "cross_entropy"

    @property
    def elites(self) -> int:
        """Number of candidates to which the Gaussian is refitted."""
        return max(2, round(self.elite * self.samples))

    def around(self, keep: Tensor) -> Gaussian:
        """The initial Gaussian, around keep ratios `(G,)`."""
        return Gaussian(keep.double().log(), torch.full_like(keep, self.sigma, dtype=torch.float64))

    def __call__(self, problem: SearchProblem, seed: int) -> None:
        """Score the starting candidates, then run rounds until no evaluations are left."""
        problem.start(self.from_sensitivity)
        if self.from_sensitivity and problem.left:
            problem.ask(ProxySearch().best(problem, seed), self.name)
        dense = problem.graph.widths
        gaussian = self.around(positive(torch.tensor(problem.ranked()[0].widths)) / dense)
        elite = []
        number = 0
        while problem.left:
            keep = gaussian.sample(SURPLUS * self.samples, generator_for(seed, number))
            candidates = problem.new(problem.project(dense * keep), min(self.samples, problem.left))
            elite += [problem.ask(widths, self.name) for widths in candidates]
            elite = sorted(elite, key=lambda scored: scored.merit, reverse=True)[: self.elites]
            kept = positive(torch.tensor([scored.widths for scored in elite])) / dense
            gaussian = gaussian.towards(kept, self.inertia, self.narrowest)
            number += 1


@dataclass(frozen=True)
class ProxySearch:
    """Cross-entropy search for the least loss according to the sensitivity; only its result is scored.

    Args:
        rounds: Number of rounds.
        search: Settings of a round; candidates cost microseconds, so a round has many.
    """

    rounds: int = 60
    search: CrossEntropySearch = CrossEntropySearch(samples=64, elite=0.125, sigma=0.3, narrowest=0.02)

    def __call__(self, problem: SearchProblem, seed: int) -> None:
        """Search with the sensitivity from the uniform candidate, and score the result."""
        problem.ask(self.best(problem, seed), "cross_entropy_proxy")

    def best(self, problem: SearchProblem, seed: int) -> Tensor:
        """Widths `(G,)` with the least loss found."""
        sensitivity, dense, search = problem.sensitivity, problem.graph.widths, self.search
        elite = problem.project(dense)[None]
        gaussian = search.around(positive(elite[0]) / dense)
        for number in range(self.rounds):
            widths = problem.project(dense * gaussian.sample(search.samples, generator_for(seed, number)))
            widths = torch.cat([elite, widths]).unique(dim=0)
            elite = widths[sensitivity(widths).argsort(stable=True)[: search.elites]]
            gaussian = gaussian.towards(positive(elite) / dense, search.inertia, search.narrowest)
        return elite[0]
