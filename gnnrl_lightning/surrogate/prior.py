"""What a surrogate expects of a network before anything is evaluated, and how it adapts that to the evaluations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gnnrl_lightning.surrogate.terms import Terms

UNITS = (*(10.0**power for power in range(-9, -2)), 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 1e2, 1e3, 1e4, 1e5, 1e6)
"""Units of the values, in those of a log divergence, of which the most probable is taken: rewards may be anything."""

UNIT_RATE = 6.0
"""Rate of the exponential prior on the magnitude of a unit's logarithm."""

SPREADS = 0.5, 0.7, 0.7, 0.5, 0.4, 0.4
"""Standard deviations of the logarithms of the factors of `Prior.scaled`: a few evaluations say little about them."""

FARTHEST, STEPS = 3.0, 30
"""Most standard deviations by which a factor is adapted, and steps of the optimiser."""


@dataclass(frozen=True)
class Prior:
    """Prior of a surrogate for one network.

    Attributes:
        mean: Means of the coefficients `(F,)` float64, one for each term.
        scale: Their standard deviations `(F,)` float64.
        amplitude: Standard deviation a of the process f.
        length: Its length l, in standard deviations of the terms.
        noise: Standard deviation of an evaluation.
        alike: Standard deviation c of what coefficients of groups that are alike have in common.
        pairs: Standard deviation p of the coefficients of products of pairs of log keep ratios.
    """

    mean: Tensor
    scale: Tensor
    amplitude: float | Tensor = 0.18
    length: float | Tensor = 0.65
    noise: float | Tensor = 0.07
    alike: float | Tensor = 0.0
    pairs: float | Tensor = 0.0

    def in_units(self, unit: float) -> Prior:
        """The prior of values in other units; the mean of the intercept stays."""
        mean, scale = torch.cat([self.mean[:1], self.mean[1:] * unit]), self.scale * unit
        amplitude, noise = self.amplitude * unit, self.noise * unit
        return Prior(mean, scale, amplitude, self.length, noise, self.alike * unit, self.pairs * unit)

    def around(self, level: Tensor) -> Prior:
        """The prior with another mean `()` of the intercept, that of values which are known: they may lie anywhere."""
        return replace(self, mean=torch.cat([level.view(1), self.mean[1:]]))

    def scaled(self, factors: Tensor) -> Prior:
        """The prior with its scales multiplied by factors `(6,)`.

        Args:
            factors: Of the scale of the terms of groups, of alike, pairs, amplitude, length and noise.
        """
        single, alike, pairs, amplitude, length, noise = factors
        return replace(
            self,
            scale=torch.cat([self.scale[:2], self.scale[2:] * single]),
            alike=self.alike * alike,
            pairs=self.pairs * pairs,
            amplitude=self.amplitude * amplitude,
            length=self.length * length,
            noise=self.noise * noise,
        )

    def adapted(self, evidence: Callable[[Prior], Tensor]) -> tuple[Prior, float]:
        """The most probable one of the scaled priors, and minus the logarithm of its density relative to this one's.

        Args:
            evidence: Log marginal likelihood of the observations, differentiable.
        """
        spreads = torch.tensor(SPREADS, dtype=torch.float64)
        away = torch.zeros(len(SPREADS), dtype=torch.float64, requires_grad=True)

        def factors() -> Tensor:
            return (spreads * away.clamp(-FARTHEST, FARTHEST)).exp()

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = 0.5 * away.square().sum() - evidence(self.scaled(factors()))
            value.backward()
            return value

        optimizer = torch.optim.LBFGS([away], max_iter=STEPS, line_search_fn="strong_wolfe")
        with torch.inference_mode(False), torch.enable_grad():
            optimizer.step(loss)
        found = self.scaled(factors().detach())
        numbers = {name: float(getattr(found, name)) for name in ("alike", "pairs", "amplitude", "length", "noise")}
        return replace(found, **numbers), 0.5 * float(away.detach().square().sum())


GROUP = 0.1
"""Standard deviation of the coefficients of the standardised terms of groups, for a network of ten of them."""

PAIR = 0.03
"""The same for the products of pairs of log keep ratios."""

LOSS, LOSS_WITHOUT = (0.25, 0.15), (0.05, 0.05)
"""Mean and standard deviation of the coefficient of the log loss, and if candidates may lack whole groups: losses of
single groups say little about networks without some of them."""


def flat_prior(terms: Terms, removable: bool = False) -> Prior:
    """The prior of a network of which only the number of groups is known.

    Args:
        terms: The terms of its candidates.
        removable: Whether candidates may lack whole groups.
    """
    groups = len(terms.dense)
    loss, spread = LOSS_WITHOUT if removable else LOSS
    mean = torch.zeros(terms.count, dtype=torch.float64)
    mean[1] = loss
    shared = GROUP * math.sqrt(10 / groups)
    return Prior(mean, torch.tensor([10.0, spread, *[shared] * (terms.count - 2)], dtype=torch.float64))


def prior_forms(terms: Terms, removable: bool = False) -> tuple[Prior, ...]:
    """Priors of different forms, of which the evaluations tell how probable each is, see `Surrogate`.

    Groups act on their own (`flat_prior`), or in pairs as well, or groups that are alike act alike.

    Args:
        terms: The terms of the candidates of a network.
        removable: Whether candidates may lack whole groups.
    """
    own, groups = flat_prior(terms, removable), len(terms.dense)
    forms = own, replace(own, pairs=PAIR * 10 / groups)
    if terms.root is None:
        return forms
    return *forms, replace(own, alike=GROUP * math.sqrt(10 / groups))
