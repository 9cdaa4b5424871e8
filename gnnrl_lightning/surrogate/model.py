r"""One process: a Bayesian model of what candidates score, conditioned on every evaluation.

The logarithm of a candidate's divergence from the dense network is nearly linear in a few terms (`Terms`). The model is

.. math::
    y(w) = \theta^T \phi(w) + \sum_{g h} \omega_{g h} x_g x_h + f(x(w)) + \epsilon, \quad
    \theta \sim N(m, \Sigma), \quad \omega_{g h} \sim N(0, p^2), \quad
    f \sim GP(0, a^2 e^{-|x - x'|^2 / (2 l^2 d)}), \quad \epsilon \sim N(0, \sigma^2)

with the terms phi, which are standardised by the known candidates, as x `(d,)` is (`Standard`); x_g is that of the log
keep ratio of a group. The mean of the intercept is that of the known values. The coefficients of groups that are alike
in the graph may be correlated: for terms of one kind Sigma is s^2 I + c^2 S, with the likeness S `(G, G)` of the
groups. The posterior is in closed form, and functions are drawn from it for Thompson sampling. The scales s, c, p, a, l
and sigma maximise the marginal likelihood, with a prior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gnnrl_lightning.surrogate.prior import UNIT_RATE, UNITS, Prior
from gnnrl_lightning.surrogate.terms import KINDS, Standard, Terms

FREQUENCIES = 256
"""Random Fourier features in a function drawn from the process f."""

ENOUGH = 8
"""Values to which the prior is adapted."""


class Process:
    """Posterior of the function from candidates to log losses, with one prior.

    Args:
        terms: Terms of candidates.
        prior: Prior of the coefficients.
        widths: Evaluated candidates `(n, G)`; none at first.
        values: Their log losses `(n,)`, the lower the better.
        adapt: Whether the prior is adapted to the evaluations by their marginal likelihood, see `Prior.adapted`.

    Attributes:
        evidence: Log marginal likelihood of the values, up to a constant that depends on their number alone; less the
            price of the adaptation.
    """

    def __init__(self, terms: Terms, prior: Prior, widths: Tensor, values: Tensor, adapt: bool = True) -> None:
        self.terms, self._values = terms, values.double()
        self.prior = prior.around(self._values.mean()) if len(values) else prior
        known = terms(widths)
        self._standard = Standard.of(known, len(terms.dense))
        phi, self._known = self._standard(known)
        self._phi = self._with_shared(phi)
        price = self._adapt() if adapt and len(values) >= ENOUGH else 0.0
        self.evidence = float(self._evidence(self.prior)) - price
        self._factor = torch.linalg.cholesky(self._covariance(self.prior))
        self._weights = self._solve(self._values - self._expected(self._phi, self.prior))

    def _adapt(self) -> float:
        """Replace the prior by the most probable one, its unit first.

        Returns:
            The price of the adaptation, in nats: minus the logarithm of the relative density of the chosen prior.
        """
        prior = self.prior

        def price_of(unit: float) -> float:
            return UNIT_RATE * abs(math.log(unit))

        unit = max(UNITS, key=lambda unit: float(self._evidence(prior.in_units(unit))) - price_of(unit))
        self.prior, price = prior.in_units(unit).adapted(self._evidence)
        return price + price_of(unit)

    def _with_shared(self, phi: Tensor) -> Tensor:
        """Terms `(n, F)`, followed by those whose independent coefficients are shared by groups that are alike."""
        if self.terms.root is None:
            return phi
        return torch.cat([phi, *(kind @ self.terms.root for kind in phi[:, 2:].chunk(KINDS, 1))], 1)

    def _scale(self, prior: Prior) -> Tensor:
        """Standard deviations of the coefficients of all terms, shared ones included."""
        if self.terms.root is None:
            return prior.scale
        shared = torch.as_tensor(prior.alike, dtype=torch.float64).expand(KINDS * len(self.terms.dense))
        return torch.cat([prior.scale, shared])

    @staticmethod
    def _expected(phi: Tensor, prior: Prior) -> Tensor:
        """Values `(n,)` by the means of the coefficients; those of shared terms are 0."""
        return phi[:, : len(prior.mean)] @ prior.mean

    def _logs(self, x: Tensor) -> Tensor:
        """Standardised log keep ratios `(..., G)` of standardised terms `(..., d)`."""
        return x[..., 1 : 1 + len(self.terms.dense)]

    def _kernel(self, x: Tensor, other: Tensor, prior: Prior) -> Tensor:
        """Covariances of the products of pairs and of the process f, at standardised terms `(n, d)` and `(m, d)`."""
        squared = torch.cdist(x, other).square() / x.shape[1]
        products = (self._logs(x) @ self._logs(other).T).square()
        return prior.amplitude**2 * torch.exp(-squared / (2 * prior.length**2)) + prior.pairs**2 * products

    def _covariance(self, prior: Prior) -> Tensor:
        """Of the values, noise included."""
        linear = (self._phi * self._scale(prior).square()) @ self._phi.T
        noise = torch.eye(len(self._values), dtype=torch.float64) * prior.noise**2
        return linear + self._kernel(self._known, self._known, prior) + noise

    def _evidence(self, prior: Prior) -> Tensor:
        """Log marginal likelihood of the values, up to a constant; differentiable by the prior."""
        factor = torch.linalg.cholesky(self._covariance(prior))
        residual = (self._values - self._expected(self._phi, prior))[:, None]
        whitened = torch.linalg.solve_triangular(factor, residual, upper=False)
        return -0.5 * whitened.square().sum() - factor.diagonal().log().sum()

    def _solve(self, residual: Tensor) -> Tensor:
        """Residuals `(n,)` or `(n, S)` multiplied by the inverse of the values' covariance."""
        columns = residual if residual.dim() == 2 else residual[:, None]
        return torch.cholesky_solve(columns, self._factor).view_as(residual)

    def terms_of(self, widths: Tensor) -> tuple[Tensor, Tensor]:
        """Terms `(m, F)`, then those that groups share `(m, 3 G)`, and standardised ones `(m, d)` of `(m, G)`."""
        phi, x = self._standard(self.terms(widths))
        return self._with_shared(phi), x

    def cross(self, phi: Tensor, x: Tensor) -> Tensor:
        """Covariances `(m, n)` of candidates with the known ones."""
        linear = (phi * self._scale(self.prior).square()) @ self._phi.T
        return linear + self._kernel(x, self._known, self.prior)

    def mean(self, widths: Tensor) -> Tensor:
        """Posterior means `(m,)` of candidates `(m, G)`."""
        phi, x = self.terms_of(widths)
        return self._expected(phi, self.prior) + self.cross(phi, x) @ self._weights

    def draw(self, count: int, generator: torch.Generator, exploration: float = 1.0) -> Draws:
        """Functions drawn from the posterior, by Matheron's rule.

        Args:
            count: Number of functions.
            generator: Of the draws.
            exploration: Share of their deviations from the posterior mean that they keep; 0: all are that mean.

        Source: Wilson et al., Efficiently sampling functions from Gaussian process posteriors, 2020,
            https://arxiv.org/abs/2002.09309.
        """
        prior, size, groups = self.prior, self._known.shape[1], len(self.terms.dense)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        # The mean of the posterior is the function without any deviations, and all that follows is linear in them.
        scale = self._scale(prior)
        coefficients = exploration * scale * normal(count, len(scale))
        coefficients[:, : len(prior.mean)] += prior.mean
        pairs = exploration * prior.pairs * normal(count, groups, groups)
        frequencies = normal(count, FREQUENCIES, size) / (prior.length * math.sqrt(size))
        phases = 2 * math.pi * torch.rand(count, FREQUENCIES, generator=generator, dtype=torch.float64)
        waves = exploration * prior.amplitude * math.sqrt(2 / FREQUENCIES) * normal(count, FREQUENCIES)
        count_known = len(self._values)
        draws = Draws(self, coefficients, pairs, frequencies, phases, waves, torch.zeros(count, count_known))
        error = exploration * prior.noise * normal(count, count_known)
        updates = self._solve((self._values - draws._before(self._phi, self._known) - error).T).T
        return replace(draws, updates=updates)


@dataclass(frozen=True)
class Draws:
    """Functions drawn from the posterior of a process, S of them.

    Attributes:
        process: The process.
        coefficients: `(S, F)`, or with those of shared terms `(S, F + 3 G)`, drawn from the prior.
        pairs: Coefficients of products of pairs of groups `(S, G, G)`.
        frequencies: `(S, R, d)` of the process f.
        phases: `(S, R)`.
        waves: Amplitudes `(S, R)`.
        updates: `(S, n)`, weights of the covariances with the known candidates.
    """

    process: Process
    coefficients: Tensor
    pairs: Tensor
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
        phi, x = self.process.terms_of(rows)
        if widths.dim() == 2:
            return self._before(phi, x) + self.updates @ self.process.cross(phi, x).T
        each = shape[:2]
        before = self._before(phi.view(*each, -1), x.view(*each, -1))
        return before + (self.process.cross(phi, x).view(*each, -1) @ self.updates[:, :, None])[..., 0]

    def _before(self, phi: Tensor, x: Tensor) -> Tensor:
        """Values `(S, m)` before conditioning, at terms `(m, F)` or `(S, m, F)` and standardised ones."""
        return (phi @ self.coefficients[:, :, None])[..., 0] + self._smooth(x)

    def _smooth(self, x: Tensor) -> Tensor:
        """Values `(S, m)` of the products and of f before conditioning, at standardised terms `([S,] m, d)`."""
        angles = x @ self.frequencies.transpose(1, 2) + self.phases[:, None]
        logs = self.process._logs(x)
        return (angles.cos() @ self.waves[:, :, None])[..., 0] + ((logs @ self.pairs) * logs).sum(2)
