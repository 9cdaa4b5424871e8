"""A distribution over pruning ratios whose spread is that of the logarithm of the keep ratio."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gnnrl_lightning.rl.policies.distributions import UnitDistribution


class LogKeep(UnitDistribution):
    """Normal distribution of the logarithm of the keep ratio: a = 1 - exp(min(z, 0)), z ~ N(location, s^2).

    The standard deviation s = sqrt(exp(2 spread) + `narrowest`^2) is in units of log keep ratios, the same for groups
    that keep a tenth and for those that keep nearly all, and never falls below `narrowest`: a policy never stops
    exploring. The raw action is z; log-probability and entropy are those of z, so that the policy also learns from
    actions of exactly 0.
    """

    narrowest = 0.05
    widest = 0.7

    def __init__(self, parameters: Tensor) -> None:
        super().__init__(parameters)
        scale = ((2 * self.spread).clamp(-12, 1).exp() + self.narrowest**2).sqrt()
        self._normal = torch.distributions.Normal(self.location, scale, validate_args=False)

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
        """z, any real number."""
        noise = torch.randn_like(self.location)
        return (self._normal.loc + self._normal.scale * noise).detach()  # NaN stays NaN, and is told by the rollout

    @staticmethod
    def squash(raw: Tensor) -> Tensor:
        """1 - exp(min(z, 0))."""
        return -raw.clamp(max=0).expm1()

    def log_prob(self, raw: Tensor) -> Tensor:
        """Log-density of z."""
        return self._normal.log_prob(raw)

    def entropy(self) -> Tensor:
        """Entropy of z, in closed form."""
        return self._normal.entropy()

    @property
    def mode(self) -> Tensor:
        """The location."""
        return self.location
