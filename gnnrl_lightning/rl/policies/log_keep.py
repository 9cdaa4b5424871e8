"""A distribution over pruning ratios whose spread is that of the logarithm of the keep ratio, or of whole groups."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from gnnrl_lightning.rl.policies.distributions import UnitDistribution

GONE = -20.0
"""Raw action that removes a group: no keep ratio is as small."""

NEVER = -200.0
"""Log-odds of removing a group that may not go: it never happens, because the probability is 0 in single precision."""


class LogKeep(UnitDistribution):
    """Normal distribution of the logarithm of the keep ratio: a = 1 - exp(min(z, 0)), z ~ N(location, s^2).

    The standard deviation s = sqrt(exp(2 spread) + `narrowest`^2) is in units of log keep ratios, the same for groups
    that keep a tenth and for those that keep nearly all, and never falls below `narrowest`: a policy never stops
    exploring. The raw action is z; log-probability and entropy are those of z, so that the policy also learns from
    actions of exactly 0.

    A group that may be removed entirely is removed with the probability sigmoid(odds): z is `GONE` then, and the action
    is 1. Small steps of a width never get there: between a few channels and none, a network is worse than at both ends.

    Args:
        parameters: (..., 2) location and spread.
        odds: (...) log-odds of removing the whole group, `NEVER` where it may not go; None: no group may go.
    """

    narrowest = 0.05
    widest = 0.7
    removes = True

    def __init__(self, parameters: Tensor, odds: Tensor | None = None) -> None:
        super().__init__(parameters)
        scale = ((2 * self.spread).clamp(-12, 1).exp() + self.narrowest**2).sqrt()
        self._normal = torch.distributions.Normal(self.location, scale, validate_args=False)
        self._odds = odds

    @staticmethod
    def parameters(action: float, spread: float) -> tuple[float, float]:
        """The spread is that of the log keep ratio."""
        return math.log1p(-action), math.log(spread)

    @staticmethod
    def location_of(action: Tensor) -> Tensor:
        """log(1 - a)."""
        return (-action).log1p()

    @staticmethod
    def spread_of(spread: Tensor) -> Tensor:
        """Logarithm of the standard deviation."""
        return spread.log()

    @classmethod
    def spread_around(cls, proposal: Tensor, spread: Tensor, step: Tensor) -> Tensor:
        """At least one channel, relative to the proposed width."""
        return cls.spread_of(torch.maximum(spread, step / (1 - proposal)).clamp(max=cls.widest))

    def sample(self) -> Tensor:
        """z, any real number, or `GONE`."""
        noise = torch.randn_like(self.location)
        raw = (self._normal.loc + self._normal.scale * noise).detach()  # NaN stays NaN, and is told by the rollout
        if self._odds is None:
            return raw
        return raw.masked_fill(torch.rand_like(raw) < self._odds.detach().sigmoid(), GONE)

    @staticmethod
    def squash(raw: Tensor) -> Tensor:
        """1 - exp(min(z, 0))."""
        return -raw.clamp(max=0).expm1()

    def log_prob(self, raw: Tensor) -> Tensor:
        """Log-density of z; log-probability of `GONE`."""
        if self._odds is None:
            return self._normal.log_prob(raw)
        gone = raw <= GONE
        kept = self._normal.log_prob(raw.masked_fill(gone, 0.0)) + logsigmoid(-self._odds)
        return torch.where(gone, logsigmoid(self._odds), kept)

    def entropy(self) -> Tensor:
        """Entropy of z in closed form; with odds, that of whether the group goes, too."""
        if self._odds is None:
            return self._normal.entropy()
        gone = self._odds.sigmoid()
        return softplus(self._odds) - self._odds * gone + (1 - gone) * self._normal.entropy()

    @property
    def mode(self) -> Tensor:
        """The location; `GONE` if that is likelier than not."""
        return self.location if self._odds is None else self.location.masked_fill(self._odds > 0, GONE)
