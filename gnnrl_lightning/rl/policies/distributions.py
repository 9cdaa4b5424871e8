"""Distributions over actions in [0, 1]; their interface is sample, squash, log_prob, entropy and mode."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_EDGE = 1e-6

WIDEST = 0.25
"""Maximum standard deviation of the initial actions around proposals."""


class UnitDistribution(ABC):
    """Independent distributions over [0, 1], one for each decision.

    Samples are *raw* actions, before they are squashed into [0, 1]. Their log-probability can be recomputed without
    inverting the squashing function, which would lose all precision near 0 and 1. `squash` maps a raw action to the
    action. Log-probability and entropy refer to the action in [0, 1].

    Args:
        parameters: (..., 2) location and spread from the actor, both unbounded; zeros give a reasonable distribution.

    Attributes:
        removes: Whether it takes `odds` as well, the log-odds of removing a whole group, see
            `gnnrl_lightning.rl.policies.log_keep.LogKeep`.
    """

    removes: ClassVar[bool] = False

    def __init__(self, parameters: Tensor) -> None:
        self.location, self.spread = parameters.unbind(-1)

    @staticmethod
    @abstractmethod
    def parameters(action: float, spread: float) -> tuple[float, float]:
        """Location and spread parameters for a mode in (0, 1) and, approximately, a standard deviation."""

    @staticmethod
    @abstractmethod
    def location_of(action: Tensor) -> Tensor:
        """Location parameters for modes in (0, 1)."""

    @staticmethod
    @abstractmethod
    def spread_of(spread: Tensor) -> Tensor:
        """Spread parameters for standard deviations at a mode of 0.5."""

    @classmethod
    def spread_around(cls, proposal: Tensor, spread: Tensor, step: Tensor) -> Tensor:
        """Spread parameters around proposed actions: a standard deviation, at least a channel, at most `WIDEST`.

        Args:
            proposal: Actions in (0, 1).
            spread: Standard deviation.
            step: Change of each action that is one channel.
        """
        return cls.spread_of(torch.maximum(spread, step).clamp(max=WIDEST))

    @abstractmethod
    def sample(self) -> Tensor:
        """Sample a raw action, without gradient, using torch's global generator."""

    @staticmethod
    @abstractmethod
    def squash(raw: Tensor) -> Tensor:
        """Map a raw action to the action in [0, 1]."""

    @abstractmethod
    def log_prob(self, raw: Tensor) -> Tensor:
        """Log-density of the action in [0, 1], given the raw action."""

    @abstractmethod
    def entropy(self) -> Tensor:
        """Differential entropy in nats of the action in [0, 1]."""

    @property
    @abstractmethod
    def mode(self) -> Tensor:
        """Deterministic raw action."""


class Beta(UnitDistribution):
    """Beta distribution with mode m and concentration k: Beta(1 + k m, 1 + k (1 - m)).

    m = sigmoid(location) and k = exp(spread + 3). The distribution is unimodal for k > 0 and uniform for k = 0, and
    its support is [0, 1]. The raw action is the action.

    Source: Chou, Maturana, Scherer, Improving Stochastic Policy Gradients in Continuous Control with Deep
    Reinforcement Learning using the Beta Distribution, 2017.
    """

    def __init__(self, parameters: Tensor) -> None:
        super().__init__(parameters)
        self._mode = self.location.sigmoid()
        k = (self.spread + 3).clamp(-5, 9).exp()
        self._beta = torch.distributions.Beta(1 + k * self._mode, 1 + k * (1 - self._mode), validate_args=False)

    @staticmethod
    def parameters(action: float, spread: float) -> tuple[float, float]:
        """Approximates the standard deviation by that of a Beta distribution with mean m, sqrt(m (1 - m) / (k + 3))."""
        k = max(action * (1 - action) / spread**2 - 3, math.exp(-5))
        return math.log(action / (1 - action)), math.log(k) - 3

    @staticmethod
    def location_of(action: Tensor) -> Tensor:
        """log(m / (1 - m))."""
        return action.logit()

    @staticmethod
    def spread_of(spread: Tensor) -> Tensor:
        """The approximation of `parameters`."""
        return (0.25 / spread.square() - 3).clamp(min=math.exp(-5)).log() - 3

    def sample(self) -> Tensor:
        """An action in (0, 1)."""
        return self._beta.sample().clamp(_EDGE, 1 - _EDGE)

    @staticmethod
    def squash(raw: Tensor) -> Tensor:
        """The action itself."""
        return raw

    def log_prob(self, raw: Tensor) -> Tensor:
        """Log-density of the Beta distribution."""
        return self._beta.log_prob(raw)

    def entropy(self) -> Tensor:
        """Entropy in closed form."""
        return self._beta.entropy()

    @property
    def mode(self) -> Tensor:
        """The mode m."""
        return self._mode


class TanhGaussian(UnitDistribution):
    """What `SquashedGaussian` and `ClippedGaussian` share: the raw action z is normal, and tanh leads to the action."""

    _normal: torch.distributions.Normal

    def _around(self, mean: Tensor) -> torch.distributions.Normal:
        return torch.distributions.Normal(mean, (self.spread - 1).clamp(-7, 2).exp(), validate_args=False)

    @staticmethod
    def location_of(action: Tensor) -> Tensor:
        """atanh(2 a - 1)."""
        return (2 * action - 1).atanh()

    @staticmethod
    def spread_of(spread: Tensor) -> Tensor:
        """The approximation of `parameters`."""
        return (2 * spread).log() + 1

    def sample(self) -> Tensor:
        """z, any real number."""
        return self._normal.sample()


class SquashedGaussian(TanhGaussian):
    """Normal distribution squashed by tanh and mapped to [0, 1]: a = (tanh(z) + 1) / 2, z ~ N(location, s^2).

    s = exp(spread - 1). The raw action is z. With |da/dz| = 2 sigmoid(2z) sigmoid(-2z),

        log p(a) = log N(z) - log 2 - log sigmoid(2z) - log sigmoid(-2z).

    The entropy is the entropy of z plus the mean of log |da/dz|, by Gauss-Hermite quadrature with 16 points.
    """

    _nodes, _weights = (torch.from_numpy(a).float() for a in np.polynomial.hermite_e.hermegauss(16))

    def __init__(self, parameters: Tensor) -> None:
        super().__init__(parameters)
        self._normal = self._around(self.location)

    @staticmethod
    def parameters(action: float, spread: float) -> tuple[float, float]:
        """Approximates the standard deviation to first order: s |da/dz|."""
        return math.atanh(2 * action - 1), math.log(spread / (2 * action * (1 - action))) + 1

    @staticmethod
    def _log_slope(raw: Tensor) -> Tensor:
        return math.log(2) + functional.logsigmoid(2 * raw) + functional.logsigmoid(-2 * raw)

    @staticmethod
    def squash(raw: Tensor) -> Tensor:
        """(tanh(z) + 1) / 2."""
        return (raw.tanh() + 1) / 2

    def log_prob(self, raw: Tensor) -> Tensor:
        """Log-density of the squashed variable."""
        return self._normal.log_prob(raw) - self._log_slope(raw)

    def entropy(self) -> Tensor:
        """Entropy by quadrature."""
        nodes = self._nodes.to(self.location)
        weights = self._weights.to(self.location) / math.sqrt(2 * math.pi)
        z = self.location[..., None] + self._normal.scale[..., None] * nodes
        return self._normal.entropy() + (self._log_slope(z) * weights).sum(-1)

    @property
    def mode(self) -> Tensor:
        """The location: the median of the action."""
        return self.location


class ClippedGaussian(TanhGaussian):
    """The paper's distribution: a normal distribution with a tanh mean, clipped and mapped to [0, 1].

    z ~ N(tanh(location), s^2) with s = exp(spread - 1), and a = (clip(z, -1, 1) + 1) / 2. The raw action is z.
    Log-probability and entropy are those of the unclipped variable (z + 1) / 2:

        log p = log N(z) + log 2.

    Different clipped values keep different z, so the policy also learns from actions of exactly 0 and 1.

    Source: GNN-RL (ICML 2022), section 4.3.
    """

    def __init__(self, parameters: Tensor) -> None:
        super().__init__(parameters)
        self._normal = self._around(self.location.tanh())

    @staticmethod
    def parameters(action: float, spread: float) -> tuple[float, float]:
        """Exact up to clipping; the standard deviation of z is twice that of a."""
        return math.atanh(2 * action - 1), math.log(2 * spread) + 1

    @staticmethod
    def squash(raw: Tensor) -> Tensor:
        """(clip(z, -1, 1) + 1) / 2."""
        return (raw.clamp(-1, 1) + 1) / 2

    def log_prob(self, raw: Tensor) -> Tensor:
        """Log-density of (z + 1) / 2."""
        return self._normal.log_prob(raw) + math.log(2)

    def entropy(self) -> Tensor:
        """Entropy of (z + 1) / 2, in closed form."""
        return self._normal.entropy() - math.log(2)

    @property
    def mode(self) -> Tensor:
        """tanh(location)."""
        return self._normal.mean
