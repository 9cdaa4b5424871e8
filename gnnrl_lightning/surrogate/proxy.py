"""The proxy: rewards estimated from the sensitivity, which learns from every evaluation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Proxy:
    r"""Estimates rewards from what narrowing each group alone costs, and learns from every evaluation that is made.

    The reward of a candidate with losses :math:`e_g` of its groups is estimated as

    .. math::
        \hat r = c - s \log \sum_g b_g e_g, \qquad \log b_g \sim N(0, \tau^2)

    A logarithm, because losses range over orders of magnitude and rewards saturate. c and s are the weighted
    least-squares line through the evaluations so far at b = 1, log b the posterior mean given what the line leaves
    over, linearised there. Evaluations near the best one count most (weight 1/2 at the median), since that is where the
    search is. Before there are three that differ, it is minus the logarithm of the sum.

    Args:
        losses: Losses of the groups, `(n, G)` widths to `(n, G)`: `gnnrl_lightning.surrogate.sensitivity.Sensitivity`.
        evaluated: The evaluations so far: widths `(n, G)` and rewards `(n,)`.
        spread: :math:`\tau`, how far the weights of groups may be from each other; 0 keeps them equal.
        noise: Standard deviation of a reward that no weights explain, at least.

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
        """Learn from evaluations with losses `(n, G)` and rewards `(n,)`."""
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
        # Ridge regression of what the line leaves over, in the dual form: n is small, G may be large.
        noise = float((weight * left.square()).sum()) + self.noise**2
        shares = -slope * losses / total.clamp(min=SMALLEST)[:, None]
        shares = shares - (weight[:, None] * shares).sum(0)
        kernel = self.spread**2 * shares @ shares.T + torch.diag(noise / (len(rewards) * weight))
        change = self.spread**2 * shares.T @ torch.linalg.solve(kernel, left)
        self._weights = change.clamp(-FURTHEST * self.spread, FURTHEST * self.spread).exp()
        fitted = _log((self._weights * losses).sum(1))
        self._offset = float((weight * (rewards + slope * fitted)).sum())


SMALLEST = 1e-9
"""Sums of losses below this count as this."""

FURTHEST = 3.0
"""Weights of groups stay within so many standard deviations."""


def _log(total: Tensor) -> Tensor:
    return total.clamp(min=SMALLEST).log()
