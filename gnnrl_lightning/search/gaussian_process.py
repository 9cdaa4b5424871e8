"""Model-based search: a Gaussian process on keep ratios, with Thompson sampling."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.seeds import generator_for

SMALLEST = 1e-7
"""Lower bound of a summed loss, before its logarithm."""


@dataclass(frozen=True)
class GaussianProcessSearch:
    """A Gaussian process predicts rewards from the log keep ratios and the log of the summed losses.

    The starting candidates and `random` variations of the best allocation by the sensitivity are scored first. Then each
    round scores the maximisers of `draws` functions drawn from the posterior, and that of its mean, among variations of
    the best candidates.

    Args:
        random: Random candidates before the first round.
        spread: Standard deviation of their log keep ratios.
        draws: Functions drawn in a round.
        parents: Best candidates that are varied.
        variations: Variations of them, in a round.
        name: Proposer of its candidates.

    The kernel is the sum of a linear, a quadratic and a radial one; its parameters maximise the marginal likelihood.
    """

    random: int = 16
    spread: float = 0.3
    draws: int = 3
    parents: int = 6
    variations: int = 2000
    name: str = "gaussian_process"

    def __call__(self, problem: SearchProblem, seed: int) -> None:
        """Score the starting candidates, then run rounds until no evaluations are left."""
        problem.start(from_sensitivity=True)
        centre = problem.ranked()[0].widths if problem.left else ()
        generator = generator_for(seed)
        noise = torch.randn(4 * self.random, len(problem.graph.groups), generator=generator, dtype=torch.float64)
        first = problem.project(torch.tensor(centre, dtype=torch.float64) * (self.spread * noise).exp())
        for widths in problem.new(first, min(self.random, problem.left)):
            problem.ask(widths, self.name)
        number = 0
        while problem.left:
            number += 1
            self._round(problem, generator_for(seed, number))

    def _round(self, problem: SearchProblem, generator: torch.Generator) -> None:
        """Score the maximisers of some functions."""
        pool = self._variations(problem, generator)
        mean, covariance = self._posterior(problem, pool)
        factor = torch.linalg.cholesky(covariance + 1e-8 * covariance.diagonal().mean() * torch.eye(len(pool)).double())
        noise = torch.randn(len(pool), self.draws, generator=generator, dtype=torch.float64)
        functions = torch.cat([(mean[:, None] + factor @ noise).T, mean[None]])
        taken: set[int] = set()
        for function in functions:
            if not problem.left:
                return
            order = function.argsort(descending=True).tolist()
            best = next((place for place in order if place not in taken), None)
            if best is None:
                return
            taken.add(best)
            problem.ask(pool[best], self.name)

    def _variations(self, problem: SearchProblem, generator: torch.Generator) -> Tensor:
        """Candidates `(n, G)` that have not been scored, near the best ones."""
        parents = torch.tensor([item.widths for item in problem.ranked()[: self.parents]], dtype=torch.float64)
        shape = self.variations, parents.shape[1]
        chosen = parents[torch.randint(len(parents), (self.variations,), generator=generator)]
        spread = 0.05 + 0.4 * torch.rand(self.variations, 1, generator=generator, dtype=torch.float64)
        share = torch.rand(self.variations, 1, generator=generator)
        changed = torch.rand(shape, generator=generator) < share.clamp(min=2 / parents.shape[1])
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        varied = problem.project(chosen * (spread * noise * changed).exp()).unique(dim=0)
        known = {item.widths for item in problem.history}
        return varied[[tuple(row) not in known for row in varied.tolist()]]

    def _posterior(self, problem: SearchProblem, pool: Tensor) -> tuple[Tensor, Tensor]:
        """Mean `(n,)` and covariance `(n, n)` of the rewards of candidates, standardised."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

        scored = problem.ranked()
        known = self._inputs(problem, torch.tensor([item.widths for item in scored]))
        rewards = np.array([item.merit[0] for item in scored])
        centre, scale = known.mean(0), known.std(0) + 1e-9
        level, range_ = rewards.mean(), rewards.std() + 1e-9
        kernel: Any = (
            ConstantKernel(0.1, (1e-4, 1e2)) * DotProduct(1.0, "fixed")
            + ConstantKernel(0.01, (1e-6, 1e1)) * DotProduct(1.0, "fixed") ** 2
            + ConstantKernel(0.1, (1e-4, 1e1)) * RBF(3.0, (0.5, 30.0))
            + WhiteKernel(0.05, (1e-4, 1.0))
        )
        process = GaussianProcessRegressor(kernel, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a parameter at its bound
            process.fit((known - centre) / scale, (rewards - level) / range_)
        mean, covariance = process.predict((self._inputs(problem, pool) - centre) / scale, return_cov=True)
        noise = process.kernel_.k2.noise_level
        return torch.from_numpy(mean), torch.from_numpy(covariance - noise * np.eye(len(pool)))

    @staticmethod
    def _inputs(problem: SearchProblem, widths: Tensor) -> np.ndarray:
        logs = (widths.double() / problem.graph.widths).log()
        total = problem.sensitivity(widths).double().clamp(min=SMALLEST).log()
        return torch.cat([logs, total[:, None]], 1).numpy()
