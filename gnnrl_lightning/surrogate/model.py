r"""The surrogate: a Bayesian model of what candidates score, conditioned on every evaluation.

The logarithm of a candidate's divergence from the dense network is nearly linear in a few terms (`Terms`). The model is

.. math::
    y(w) = \theta^T \phi(w) + f(x(w)) + \epsilon, \quad
    \theta_i \sim N(m_i, s_i^2), \quad f \sim GP(0, a^2 e^{-|x - x'|^2 / (2 l^2 G)}), \quad \epsilon \sim N(0, \sigma^2)

so its posterior is in closed form, and functions are drawn from it for Thompson sampling. The prior (`Prior`) comes
from `PriorNetwork`, which reads the network's graph, or is the same for all coefficients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gnnrl_lightning.surrogate.terms import Terms

FREQUENCIES = 256
"""Random Fourier features in a function drawn from the process f."""

UNITS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Units of the values, in those of a log divergence, of which the likeliest is taken: rewards may be anything."""

SCALES = (0.5, 1.0, 2.0, 4.0)
"""Factors of the prior's standard deviations, of which the likeliest is taken."""

NOISES = (0.5, 1.0, 2.0)
"""Factors of the noise, of which the likeliest is taken."""


@dataclass(frozen=True)
class Prior:
    """Prior of a surrogate for one network.

    Attributes:
        mean: Means of the coefficients `(F,)` float64, one for each term.
        scale: Their standard deviations `(F,)` float64.
        amplitude: Standard deviation a of the process f.
        length: Its length l, in logarithms of keep ratios.
        noise: Standard deviation of an evaluation.
    """

    mean: Tensor
    scale: Tensor
    amplitude: float = 0.18
    length: float = 0.2
    noise: float = 0.1

    def in_units(self, unit: float) -> Prior:
        """The prior of values in other units; the intercept stays."""
        mean, scale = self.mean * unit, self.scale * unit
        mean[0], scale[0] = self.mean[0], self.scale[0] * max(unit, 1.0)
        return Prior(mean, scale, self.amplitude * unit, self.length, self.noise * unit)

    def scaled(self, scale: float, noise: float) -> Prior:
        """The prior with standard deviations and noise multiplied by factors; the intercept stays."""
        factor = torch.full_like(self.scale, scale)
        factor[0] = 1.0
        return replace(self, scale=self.scale * factor, amplitude=self.amplitude * scale, noise=self.noise * noise)


LINEAR, SQUARE, SHARE, PAIR = 0.15, 0.1, 0.35, 0.05
"""Standard deviations of the coefficients of a network of ten groups, for terms of groups and of pairs."""

SLOPE = 0.35, 0.15
"""Mean and standard deviation of the coefficient of the log loss."""


def flat_prior(terms: Terms) -> Prior:
    """The prior of a network of which only the number of groups is known."""
    groups, pairs = len(terms.dense), terms.pairs.shape[1]
    scale = [LINEAR] * groups + [SQUARE] * groups + [SHARE] * groups + [PAIR] * pairs
    shared = math.sqrt(10 / groups)
    mean = torch.zeros(terms.count, dtype=torch.float64)
    mean[1] = SLOPE[0]
    return Prior(mean, torch.tensor([10.0, SLOPE[1], *(shared * each for each in scale)], dtype=torch.float64))


class Surrogate:
    """Posterior of the function from candidates to log losses.

    Args:
        terms: Terms of candidates.
        prior: Prior of the coefficients.
        widths: Evaluated candidates `(n, G)`; none at first.
        values: Their log losses `(n,)`, the lower the better.
        adapt: Whether the prior's units, scale and noise are adapted to the evaluations by their marginal likelihood.
    """

    def __init__(self, terms: Terms, prior: Prior, widths: Tensor, values: Tensor, adapt: bool = True) -> None:
        self.terms, self.prior = terms, prior
        self._phi, self._x, self._values = terms(widths), terms.logs(widths), values.double()
        if adapt and len(values) >= 8:
            self.prior = max((prior.in_units(unit) for unit in UNITS), key=self._evidence)
            grid = [self.prior.scaled(scale, noise) for scale in SCALES for noise in NOISES]
            self.prior = max(grid, key=self._evidence)
        self._factor = torch.linalg.cholesky(self._covariance(self.prior))
        self._weights = self._solve(self._values - self._phi @ self.prior.mean)

    def _kernel(self, x: Tensor, other: Tensor, prior: Prior) -> Tensor:
        squared = torch.cdist(x, other).square() / x.shape[1]
        return prior.amplitude**2 * torch.exp(-squared / (2 * prior.length**2))

    def _covariance(self, prior: Prior) -> Tensor:
        """Of the evaluations, noise included."""
        linear = (self._phi * prior.scale.square()) @ self._phi.T
        noise = prior.noise**2 * torch.eye(len(self._phi), dtype=torch.float64)
        return linear + self._kernel(self._x, self._x, prior) + noise

    def _evidence(self, prior: Prior) -> float:
        """Log marginal likelihood of the evaluations, up to a constant."""
        factor = torch.linalg.cholesky(self._covariance(prior))
        residual = (self._values - self._phi @ prior.mean)[:, None]
        whitened = torch.linalg.solve_triangular(factor, residual, upper=False)
        return float(-0.5 * whitened.square().sum() - factor.diagonal().log().sum())

    def _solve(self, residual: Tensor) -> Tensor:
        """Residuals `(n,)` or `(n, S)` multiplied by the inverse of the evaluations' covariance."""
        columns = residual if residual.dim() == 2 else residual[:, None]
        return torch.cholesky_solve(columns, self._factor).view_as(residual)

    def cross(self, phi: Tensor, x: Tensor) -> Tensor:
        """Covariances `(m, n)` of candidates with the evaluations."""
        return (phi * self.prior.scale.square()) @ self._phi.T + self._kernel(x, self._x, self.prior)

    def mean(self, widths: Tensor) -> Tensor:
        """Posterior means `(m,)` of candidates `(m, G)`."""
        phi, x = self.terms(widths), self.terms.logs(widths)
        return phi @ self.prior.mean + self.cross(phi, x) @ self._weights

    def deviation(self, widths: Tensor) -> Tensor:
        """Posterior standard deviations `(m,)` of candidates `(m, G)`, without the noise of an evaluation."""
        phi, x = self.terms(widths), self.terms.logs(widths)
        before = (phi.square() * self.prior.scale.square()).sum(1) + self.prior.amplitude**2
        cross = self.cross(phi, x)
        whitened = torch.linalg.solve_triangular(self._factor, cross.T, upper=False)
        return (before - whitened.square().sum(0)).clamp(min=0).sqrt()

    def coefficients(self) -> Tensor:
        """Posterior means of the coefficients `(F,)`."""
        return self.prior.mean + self.prior.scale.square() * (self._phi.T @ self._weights)

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Functions drawn from the posterior, by Matheron's rule.

        Args:
            count: Number of functions.
            generator: Of the draws.

        Source: Wilson et al., Efficiently sampling functions from Gaussian process posteriors, 2020,
            https://arxiv.org/abs/2002.09309.
        """
        prior, groups = self.prior, self._x.shape[1]

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        coefficients = prior.mean + prior.scale * normal(count, len(prior.mean))
        frequencies = normal(count, FREQUENCIES, groups) / (prior.length * math.sqrt(groups))
        phases = 2 * math.pi * torch.rand(count, FREQUENCIES, generator=generator, dtype=torch.float64)
        waves = prior.amplitude * math.sqrt(2 / FREQUENCIES) * normal(count, FREQUENCIES)
        draws = Draws(self, coefficients, frequencies, phases, waves, torch.zeros(count, len(self._values)))
        known = draws._before(self._phi, self._x) + prior.noise * normal(count, len(self._values))
        updates = self._solve((self._values - known).T).T
        return replace(draws, updates=updates)


@dataclass(frozen=True)
class Draws:
    """Functions drawn from the posterior of a surrogate, S of them.

    Attributes:
        surrogate: The surrogate.
        coefficients: `(S, F)`, drawn from the prior.
        frequencies: `(S, R, G)` of the process f.
        phases: `(S, R)`.
        waves: Amplitudes `(S, R)`.
        updates: `(S, n)`, weights of the covariances with the evaluations.
    """

    surrogate: Surrogate
    coefficients: Tensor
    frequencies: Tensor
    phases: Tensor
    waves: Tensor
    updates: Tensor

    def __len__(self) -> int:
        return len(self.coefficients)

    def __call__(self, widths: Tensor) -> Tensor:
        """Values `(S, m)` of candidates by each function.

        Args:
            widths: `(m, G)`, the same for all functions, or `(S, m, G)`, its own for each.
        """
        terms, shape = self.surrogate.terms, widths.shape
        rows = widths.reshape(-1, shape[-1])
        phi, x = terms(rows), terms.logs(rows)
        if widths.dim() == 2:
            return self._before(phi, x) + self.updates @ self.surrogate.cross(phi, x).T
        each = shape[:2]
        before = self._before(phi.view(*each, -1), x.view(*each, -1))
        return before + (self.surrogate.cross(phi, x).view(*each, -1) @ self.updates[:, :, None])[..., 0]

    def _before(self, phi: Tensor, x: Tensor) -> Tensor:
        """Values `(S, m)` before conditioning, at terms `(m, F)` or `(S, m, F)` and log keep ratios alike."""
        angles = x @ self.frequencies.transpose(1, 2) + self.phases[:, None]
        linear = phi @ self.coefficients[:, :, None]
        return (linear + angles.cos() @ self.waves[:, :, None])[..., 0]

    def elasticities(self) -> Tensor:
        """Posterior coefficients of the terms `(S, F)` of each function, without the process f."""
        surrogate = self.surrogate
        return self.coefficients + surrogate.prior.scale.square() * (self.updates @ surrogate._phi)
