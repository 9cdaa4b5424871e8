"""The proxy: estimates rewards from the sensitivity, and is refitted after every evaluation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Proxy:
    r"""Estimates rewards from the sensitivity of each group, and is refitted after every evaluation.

    The reward of a candidate whose groups have losses :math:`e_g` is estimated as

    .. math::
        \hat r = c - s \log \sum_g b_g e_g, \qquad \log b_g \sim N(0, \tau^2)

    The logarithm accounts for losses that range over orders of magnitude and rewards that saturate. c and s are the
    weighted least-squares line through the evaluations so far at b = 1; log b is the posterior mean given the residuals
    of that line, linearised there. Evaluations near the best one have the largest weights (1/2 at the median distance).
    Before three evaluations with different rewards, the estimate is the negative logarithm of the sum.

    Args:
        losses: Maps widths `(n, G)` to losses per group `(n, G)`, see `Sensitivity.of_groups`.
        evaluated: Returns the evaluations so far: widths `(n, G)` and rewards `(n,)`.
        spread: :math:`\tau`, prior standard deviation of the logarithms of the groups' weights; 0 keeps them equal.
        noise: Lower bound of the standard deviation of rewards that the weights do not explain.

    Attributes:
        evaluations: Always 0: estimates are free.
    """

    def __init__(
        self,
        losses: Callable[[Tensor], Tensor],
        evaluated: Callable[[], tuple[Tensor, Tensor]],
        spread: float = 0.5,
        noise: float = 0.003,
    ) -> None:
        self.losses, self.evaluated, self.spread, self.noise = losses, evaluated, spread, noise
        self.evaluations = 0
        self._known = -1
        self._offset, self._slope, self._weights = 0.0, 1.0, torch.ones((), dtype=torch.float64)

    def __call__(self, widths: Tensor) -> Tensor:
        """Estimates `(n,)`."""
        known, rewards = self.evaluated()
        if len(rewards) != self._known:
            self._known = len(rewards)
            if len(rewards) > 2 and float(rewards.max() - rewards.min()) > 0:
                self._fit(self.losses(known), rewards.double())
        return (self._offset - self._slope * _log((self._weights * self.losses(widths)).sum(1))).float()

    def _fit(self, losses: Tensor, rewards: Tensor) -> None:
        """Fit to evaluations with losses `(n, G)` and rewards `(n,)`."""
        distance = rewards.max() - rewards
        weight = 1 / (1 + (distance / distance.median().clamp(min=1e-12)).square())
        weight = weight / weight.sum()
        total = losses.sum(1)
        size = _log(total)
        centre, level = (weight * size).sum(), (weight * rewards).sum()
        variance = (weight * (size - centre).square()).sum().clamp(min=1e-12)
        slope = -float((weight * (size - centre) * (rewards - level)).sum() / variance)
        self._slope = slope = max(slope, 1e-6)
        left = rewards - level + slope * (size - centre)
        # Ridge regression on the residuals of the line, in dual form: n is small, G may be large.
        noise = float((weight * left.square()).sum()) + self.noise**2
        shares = -slope * losses / total.clamp(min=SMALLEST)[:, None]
        shares = shares - (weight[:, None] * shares).sum(0)
        kernel = self.spread**2 * shares @ shares.T + torch.diag(noise / (len(rewards) * weight))
        change = self.spread**2 * shares.T @ torch.linalg.solve(kernel, left)
        self._weights = change.clamp(-FURTHEST * self.spread, FURTHEST * self.spread).exp()
        fitted = _log((self._weights * losses).sum(1))
        self._offset = float((weight * (rewards + slope * fitted)).sum())


SMALLEST = 1e-9
"""Lower bound of total losses before the logarithm."""

FURTHEST = 3.0
"""Bound of the logarithms of the groups' weights, in standard deviations."""


def _log(total: Tensor) -> Tensor:
    return total.clamp(min=SMALLEST).log()
