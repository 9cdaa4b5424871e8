"""Model-based search: a Gaussian process on keep ratios, with Thompson sampling."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnrl_lightning.cost.ranges import log_keep
from gnnrl_lightning.search.finals import standardised
from gnnrl_lightning.search.knowledge import evaluated
from gnnrl_lightning.search.model_based import Functions, ModelBasedSearch
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.surrogate.terms import SMALLEST

LEAST = 0.1
"""Least unit of an input: a group that has hardly been varied is not infinitely far from all others once it is."""


@dataclass(frozen=True)
class GaussianProcessSearch(ModelBasedSearch):
    """A Gaussian process predicts rewards from the log keep ratios and the log of the summed losses.

    The kernel is the sum of a linear, a quadratic and a radial one; its parameters maximise the marginal likelihood.
    """

    name: str = "gaussian_process"

    def model(self, problem: SearchProblem) -> Functions:
        """Rewards in units of their standard deviation."""

        def functions(pool: Tensor, generator: torch.Generator) -> Tensor:
            mean, covariance = self._posterior(problem, pool)
            jitter = 1e-8 * covariance.diagonal().mean() * torch.eye(len(pool), dtype=torch.float64)
            noise = torch.randn(len(pool), self.draws, generator=generator, dtype=torch.float64)
            return torch.cat([(mean[:, None] + torch.linalg.cholesky(covariance + jitter) @ noise).T, mean[None]])

        return functions

    @staticmethod
    def _posterior(problem: SearchProblem, pool: Tensor) -> tuple[Tensor, Tensor]:
        """Mean `(n,)` and covariance `(n, n)` of the rewards of candidates, standardised."""
        widths, rewards = evaluated(problem.ranked(), lambda scored: scored.merit[0])
        known, new = (inputs_of(problem.graph.widths, problem.sensitivity, each) for each in (widths, pool))
        return posterior(known, rewards, new)


def inputs_of(dense: Tensor, losses: Callable[[Tensor], Tensor], widths: Tensor) -> Tensor:
    """What the process sees of candidates `(n, G)`: log keep ratios and the log of the summed losses `(n, G + 1)`.

    Args:
        dense: Widths of the dense network `(G,)`.
        losses: Summed losses `(n,)` of candidates.
        widths: The candidates.
    """
    return torch.cat([log_keep(widths, dense), losses(widths).double().clamp(min=SMALLEST).log()[:, None]], 1)


def posterior(known: Tensor, rewards: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean `(m,)` and covariance `(m, m)` of rewards, in units of the standard deviation of the known ones.

    Args:
        known: Inputs `(n, F)` of the evaluated candidates.
        rewards: Their rewards `(n,)`.
        inputs: Inputs `(m, F)` of other candidates.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

    kernel: Any = (
        ConstantKernel(0.1, (1e-4, 1e2)) * DotProduct(1.0, "fixed")
        + ConstantKernel(0.01, (1e-6, 1e1)) * DotProduct(1.0, "fixed") ** 2
        + ConstantKernel(0.1, (1e-4, 1e1)) * RBF(3.0, (0.5, 30.0))
        + WhiteKernel(0.05, (1e-4, 1.0))
    )
    process = GaussianProcessRegressor(kernel, random_state=0)
    centre, size = known.mean(0), known.std(0, correction=0).clamp(min=LEAST)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a parameter at its bound
        process.fit(((known - centre) / size).numpy(), standardised(rewards).numpy())
    mean, covariance = process.predict(((inputs - centre) / size).numpy(), return_cov=True)
    fitted: Any = process.kernel_
    noise = fitted.k2.noise_level
    return torch.from_numpy(mean), torch.from_numpy(covariance - noise * np.eye(len(inputs)))
