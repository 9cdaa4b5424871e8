r"""The surrogate: a Bayesian model of what candidates score, conditioned on every evaluation.

The logarithm of a candidate's divergence from the dense network is nearly linear in a few terms (`Terms`). The model is

.. math::
    y(w) = \theta^T \phi(w) + f(x(w)) + \epsilon, \quad
    \theta_i \sim N(m_i, s_i^2), \quad f \sim GP(0, a^2 e^{-|x - x'|^2 / (2 l^2 d)}), \quad \epsilon \sim N(0, \sigma^2)

with the terms phi, which are standardised by the known candidates, as x `(d,)` is (`Standard`). Its posterior is in
closed form, and functions are drawn from it for Thompson sampling. The scale s of the terms of groups, a, l and sigma
maximise the marginal likelihood, with a prior. Beside values it observes slopes of candidates (`Slopes`): derivatives
of y by each log keep ratio, which are measured with an error that is the same for all slopes of a group, and noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gnnrl_lightning.surrogate.observations import Observations, Slopes
from gnnrl_lightning.surrogate.prior import UNIT_RATE, UNITS, Prior
from gnnrl_lightning.surrogate.terms import Standard, Terms

FREQUENCIES = 256
"""Random Fourier features in a function drawn from the process f."""

DOUBTS = (1.0, 3.0, 10.0, 30.0)
"""Factors of the errors of slopes, of which the likeliest is taken: they say less about some networks."""

ENOUGH = 8
"""Values to which the prior is adapted."""


class Surrogate:
    """Posterior of the function from candidates to log losses.

    Args:
        terms: Terms of candidates.
        prior: Prior of the coefficients.
        widths: Evaluated candidates `(n, G)`; none at first.
        values: Their log losses `(n,)`, the lower the better.
        slopes: Slopes of some candidates, evaluated or not.
        adapt: Whether the prior is adapted to the evaluations by their marginal likelihood, see `Prior.adapted`.
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
        at_points = terms(self._data.points)
        self._standard = Standard.of(at_points[: len(values)], len(terms.dense))
        phi, self._points = self._standard(at_points)
        self._phi = self._data.combined(phi)
        if adapt and len(values) >= ENOUGH:
            self._adapt()
        self._factor = torch.linalg.cholesky(self._covariance(self.prior, self._data))
        self._weights = self._solve(self._data.observed - self._phi @ self.prior.mean)

    def _adapt(self) -> None:
        """Replace the prior and the errors of slopes by the most probable ones, one after the other."""
        data, prior = self._data, self.prior

        def probability_of_unit(unit: float) -> float:
            # The density of the slopes as they were measured.
            density = float(self._evidence(prior.in_units(unit), data.scaled(unit))) + len(data.spans) * math.log(unit)
            return density - UNIT_RATE * abs(math.log(unit))

        unit = max(UNITS, key=probability_of_unit)
        data, prior = data.scaled(unit), prior.in_units(unit)
        if len(data.spans):
            doubted = [data.doubted(doubt) for doubt in DOUBTS]
            data = max(doubted, key=lambda doubted: float(self._evidence(prior, doubted)))
        self._data, self.prior = data, prior.adapted(lambda prior: self._evidence(prior, data))

    def _kernel(self, x: Tensor, other: Tensor, prior: Prior) -> Tensor:
        squared = torch.cdist(x, other).square() / x.shape[1]
        return prior.amplitude**2 * torch.exp(-squared / (2 * prior.length**2))

    def _covariance(self, prior: Prior, data: Observations) -> Tensor:
        """Of the observations, noise included."""
        linear = (self._phi * prior.scale.square()) @ self._phi.T
        smooth = data.combined(data.combined(self._kernel(self._points, self._points, prior)).T)
        return linear + smooth + data.bias @ data.bias.T + data.deviations(prior.noise).square().diag()

    def _evidence(self, prior: Prior, data: Observations) -> Tensor:
        """Log marginal likelihood of the observations, up to a constant; differentiable by the prior."""
        factor = torch.linalg.cholesky(self._covariance(prior, data))
        residual = (data.observed - self._phi @ prior.mean)[:, None]
        whitened = torch.linalg.solve_triangular(factor, residual, upper=False)
        return -0.5 * whitened.square().sum() - factor.diagonal().log().sum()

    def _solve(self, residual: Tensor) -> Tensor:
        """Residuals `(n + k,)` or `(n + k, S)` multiplied by the inverse of the observations' covariance."""
        columns = residual if residual.dim() == 2 else residual[:, None]
        return torch.cholesky_solve(columns, self._factor).view_as(residual)

    def terms_of(self, widths: Tensor) -> tuple[Tensor, Tensor]:
        """Terms `(m, F)` and standardised ones `(m, d)` of candidates `(m, G)`."""
        return self._standard(self.terms(widths))

    def cross(self, phi: Tensor, x: Tensor) -> Tensor:
        """Covariances `(m, n + k)` of candidates with the observations."""
        smooth = self._data.combined(self._kernel(x, self._points, self.prior).T).T
        return (phi * self.prior.scale.square()) @ self._phi.T + smooth

    def mean(self, widths: Tensor) -> Tensor:
        """Posterior means `(m,)` of candidates `(m, G)`."""
        phi, x = self.terms_of(widths)
        return phi @ self.prior.mean + self.cross(phi, x) @ self._weights

    def deviation(self, widths: Tensor) -> Tensor:
        """Posterior standard deviations `(m,)` of candidates `(m, G)`, without the noise of an evaluation."""
        phi, x = self.terms_of(widths)
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
        prior, size, groups = self.prior, self._points.shape[1], len(self.terms.dense)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        coefficients = prior.mean + prior.scale * normal(count, len(prior.mean))
        frequencies = normal(count, FREQUENCIES, size) / (prior.length * math.sqrt(size))
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
        frequencies: `(S, R, d)` of the process f.
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
        shape = widths.shape
        rows = widths.reshape(-1, shape[-1])
        phi, x = self.surrogate.terms_of(rows)
        if widths.dim() == 2:
            return self._before(phi, x) + self.updates @ self.surrogate.cross(phi, x).T
        each = shape[:2]
        before = self._before(phi.view(*each, -1), x.view(*each, -1))
        return before + (self.surrogate.cross(phi, x).view(*each, -1) @ self.updates[:, :, None])[..., 0]

    def _before(self, phi: Tensor, x: Tensor) -> Tensor:
        """Values `(S, m)` before conditioning, at terms `(m, F)` or `(S, m, F)` and standardised ones."""
        return (phi @ self.coefficients[:, :, None])[..., 0] + self._smooth(x)

    def _smooth(self, x: Tensor) -> Tensor:
        """Values `(S, m)` of the process f before conditioning, at standardised terms `(m, d)` or `(S, m, d)`."""
        angles = x @ self.frequencies.transpose(1, 2) + self.phases[:, None]
        return (angles.cos() @ self.waves[:, :, None])[..., 0]
