r"""The surrogate: a Bayesian model of what candidates score, conditioned on every evaluation.

The logarithm of a candidate's divergence from the dense network is nearly linear in a few terms (`Terms`). The model is

.. math::
    y(w) = \theta^T \phi(w) + f(x(w)) + \epsilon, \quad
    \theta_i \sim N(m_i, s_i^2), \quad f \sim GP(0, a^2 e^{-|x - x'|^2 / (2 l^2 G)}), \quad \epsilon \sim N(0, \sigma^2)

so its posterior is in closed form, and functions are drawn from it for Thompson sampling. Beside values it observes
slopes of candidates (`Slopes`): derivatives of y by each log keep ratio, which are measured with an error that is the
same for all slopes of a group, and noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from gnnrl_lightning.surrogate.observations import Observations, Slopes
from gnnrl_lightning.surrogate.terms import Terms

FREQUENCIES = 256
"""Random Fourier features in a function drawn from the process f."""

UNITS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Units of the values, in those of a log divergence, of which the most probable is taken: rewards may be anything."""

SCALES = (0.5, 1.0, 2.0, 4.0)
"""Factors of the prior's standard deviations, of which the most probable is taken."""

NOISES = (0.5, 1.0, 2.0)
"""Factors of the noise, of which the most probable is taken."""

DOUBTS = (1.0, 3.0, 10.0, 30.0)
"""Factors of the errors of slopes, of which the likeliest is taken: they say less about some networks."""

UNIT_RATE, SCALE_RATE = 6.0, 10.0
"""Rates of the exponential priors on the magnitudes of the logarithms of units, and of scales and noises.

A few evaluations say little about these factors: without the priors, the fit is worse for up to 40 evaluations. The
rates were chosen by the rank correlations of `experiments/benchmarks/slopes.py` on ResNet-20 and ResNet-56.
"""


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
        slopes: Slopes of some candidates, evaluated or not.
        adapt: Whether the prior's units, scale and noise are adapted to the evaluations by their marginal likelihood.
    """

    def __init__(
        self,
        terms: Terms,
        prior: Prior,
        widths: Tensor,
        values: Tensor,
        slopes: Sequence[Slopes] = (),
        adapt: bool = True,
    ) -> None:
        self.terms, self.prior = terms, prior
        self._data = Observations.of(terms.dense, widths, values, slopes)
        self._points = terms.logs(self._data.points)
        self._phi = self._data.combined(terms(self._data.points))
        if adapt and len(values) >= 8:
            self._adapt()
        self._factor = torch.linalg.cholesky(self._covariance(self.prior, self._data))
        self._weights = self._solve(self._data.observed - self._phi @ self.prior.mean)

    def _adapt(self) -> None:
        """Replace the factors of the prior and of the observations by the most probable ones, one after the other."""
        data, prior = self._data, self.prior

        def probability_of_unit(unit: float) -> float:
            # The density of the slopes as they were measured.
            density = self._evidence(prior.in_units(unit), data.scaled(unit)) + len(data.spans) * math.log(unit)
            return density - UNIT_RATE * abs(math.log(unit))

        unit = max(UNITS, key=probability_of_unit)
        data, prior = data.scaled(unit), prior.in_units(unit)
        if len(data.spans):
            doubted = [data.doubted(doubt) for doubt in DOUBTS]
            data = max(doubted, key=lambda doubted: self._evidence(prior, doubted))

        def probability(factors: tuple[float, float]) -> float:
            distance = sum(abs(math.log(factor)) for factor in factors)
            return self._evidence(prior.scaled(*factors), data) - SCALE_RATE * distance

        self._data, self.prior = data, prior.scaled(*max(product(SCALES, NOISES), key=probability))

    def _kernel(self, x: Tensor, other: Tensor, prior: Prior) -> Tensor:
        squared = torch.cdist(x, other).square() / x.shape[1]
        return prior.amplitude**2 * torch.exp(-squared / (2 * prior.length**2))

    def _covariance(self, prior: Prior, data: Observations) -> Tensor:
        """Of the observations, noise included."""
        linear = (self._phi * prior.scale.square()) @ self._phi.T
        smooth = data.combined(data.combined(self._kernel(self._points, self._points, prior)).T)
        return linear + smooth + data.bias @ data.bias.T + data.deviations(prior.noise).square().diag()

    def _evidence(self, prior: Prior, data: Observations) -> float:
        """Log marginal likelihood of the observations, up to a constant."""
        factor = torch.linalg.cholesky(self._covariance(prior, data))
        residual = (data.observed - self._phi @ prior.mean)[:, None]
        whitened = torch.linalg.solve_triangular(factor, residual, upper=False)
        return float(-0.5 * whitened.square().sum() - factor.diagonal().log().sum())

    def _solve(self, residual: Tensor) -> Tensor:
        """Residuals `(n + k,)` or `(n + k, S)` multiplied by the inverse of the observations' covariance."""
        columns = residual if residual.dim() == 2 else residual[:, None]
        return torch.cholesky_solve(columns, self._factor).view_as(residual)

    def cross(self, phi: Tensor, x: Tensor) -> Tensor:
        """Covariances `(m, n + k)` of candidates with the observations."""
        smooth = self._data.combined(self._kernel(x, self._points, self.prior).T).T
        return (phi * self.prior.scale.square()) @ self._phi.T + smooth

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

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Functions drawn from the posterior, by Matheron's rule.

        Args:
            count: Number of functions.
            generator: Of the draws.

        Source: Wilson et al., Efficiently sampling functions from Gaussian process posteriors, 2020,
            https://arxiv.org/abs/2002.09309.
        """
        prior, groups = self.prior, self._points.shape[1]

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        coefficients = prior.mean + prior.scale * normal(count, len(prior.mean))
        frequencies = normal(count, FREQUENCIES, groups) / (prior.length * math.sqrt(groups))
        phases = 2 * math.pi * torch.rand(count, FREQUENCIES, generator=generator, dtype=torch.float64)
        waves = prior.amplitude * math.sqrt(2 / FREQUENCIES) * normal(count, FREQUENCIES)
        data = self._data
        draws = Draws(self, coefficients, frequencies, phases, waves, torch.zeros(count, len(data.observed)))
        smooth = data.combined(draws._smooth(self._points).T).T
        error = data.deviations(prior.noise) * normal(count, len(data.observed)) + normal(count, groups) @ data.bias.T
        updates = self._solve((data.observed - coefficients @ self._phi.T - smooth - error).T).T
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
        updates: `(S, n + k)`, weights of the covariances with the observations.
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
        return (phi @ self.coefficients[:, :, None])[..., 0] + self._smooth(x)

    def _smooth(self, x: Tensor) -> Tensor:
        """Values `(S, m)` of the process f before conditioning, at log keep ratios `(m, G)` or `(S, m, G)`."""
        angles = x @ self.frequencies.transpose(1, 2) + self.phases[:, None]
        return (angles.cos() @ self.waves[:, :, None])[..., 0]
