"""Model-based search: a Gaussian process on keep ratios, with Thompson sampling."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnrl_lightning.cost.ranges import log_keep
from gnnrl_lightning.search.model_based import Functions, ModelBasedSearch
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.surrogate.terms import SMALLEST


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
        fitted: Any = process.kernel_
        noise = fitted.k2.noise_level
        return torch.from_numpy(mean), torch.from_numpy(covariance - noise * np.eye(len(pool)))

    @staticmethod
    def _inputs(problem: SearchProblem, widths: Tensor) -> np.ndarray:
        logs = log_keep(widths, problem.graph.widths)
        total = problem.sensitivity(widths).double().clamp(min=SMALLEST).log()
        return torch.cat([logs, total[:, None]], 1).numpy()
