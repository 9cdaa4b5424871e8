r"""Which candidates a short training is worth, and which of the trained ones is best.

An evaluation without training says little about the accuracy after fine-tuning: a least-squares repair serves blocks of
one channel well, training does not. So some candidates of a search, the finalists, are trained for a few steps. What
they score afterwards is modelled over all candidates of the search as

.. math::
    z(w) = b\, r(w) + c^T x(w) + f(x(w)) + \epsilon, \quad b \sim N(b_0, s_b^2), \quad
    c \sim N(0, s_c^2 / G), \quad f \sim GP(0, a^2 e^{-|x - x'|^2 / (2 G)})

where r is the loss before training and x are the log keep ratios, both standardised over the candidates. The next
finalist is the one with the largest expected improvement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gnnrl_lightning.cost.ranges import log_keep
from gnnrl_lightning.options import at_least, check_fields

SLOPE = 0.5, 0.5
"""Mean and standard deviation of b: a candidate that is better before training is expected to be better after it."""

LINEAR, SMOOTH, NOISE = 0.3, 1.0, 0.2
"""Standard deviations of the linear part, of the process f and of a training, in units of the values."""

UNIT, CERTAINTY = 0.05, 2.0
"""Prior of the values' unit, in logarithms of losses, and its weight in trainings."""

LEVEL = 25.0
"""Variance of the level of the losses after training, in units of the values."""

STEPS = 5
"""Fixed-point steps for the unit."""

ELIGIBLE = 0.75
"""Share of the candidates that may become finalists, those with the least loss before training."""


@dataclass(frozen=True)
class FinalsOptions:
    """Short trainings after the search, which choose the candidate that is delivered.

    Args:
        candidates: Number of candidates to train; 0: the best evaluated candidate is delivered. Useful only if the
            network is fine-tuned afterwards.
        steps: Training steps of each. 300 of them, with 128 examples, take as long as about 90 evaluations with 1,000
            held-out examples.

    Raises:
        UserError: A number is out of range.
    """

    candidates: int = 0
    steps: int = 300

    def __post_init__(self) -> None:
        check_fields(self, "finals")
        at_least("finals", 0, candidates=self.candidates)
        at_least("finals", 1, steps=self.steps)


class Finals:
    """The candidates of a search, of which some are trained one after the other.

    Args:
        dense: Dense widths `(G,)`.
        widths: Distinct candidates `(n, G)`.
        losses: Their losses before training `(n,)`, finite, the lower the better: logarithms of positive losses.

    Attributes:
        eligible: Numbers of the candidates that may become finalists.
    """

    def __init__(self, dense: Tensor, widths: Tensor, losses: Tensor) -> None:
        logs = log_keep(widths, dense)
        self._points = standardised(logs)
        self._losses = standardised(losses.double()[:, None])[:, 0]
        self.eligible = losses.argsort(stable=True)[: math.ceil(ELIGIBLE * len(losses))].tolist()
        squared = torch.cdist(self._points, self._points).square() / logs.shape[1]
        linear = self._points @ self._points.T / logs.shape[1]
        self._kernel = SMOOTH**2 * torch.exp(-squared / 2) + LINEAR**2 * linear
        self._kernel += SLOPE[1] ** 2 * self._losses[:, None] * self._losses

    def next(self, trained: Mapping[int, float], failed: Sequence[int] = (), count: int = 1) -> list[int]:
        """Candidates to train next, at most `count`, of which each is chosen as if the ones before had been trained.

        Args:
            trained: Number of a candidate -> its loss after training, a logarithm of a positive loss.
            failed: Candidates that cannot be trained.
            count: How many.
        """
        believed, chosen = dict(trained), list[int]()
        for _ in range(count):
            left = [number for number in self.eligible if number not in believed and number not in failed]
            if not left:
                break
            mean, deviation = self.posterior(believed)
            best = min((float(mean[number]) for number in believed), default=0.0)
            # Without a training, the loss before it decides.
            gain = expected_improvement(best - mean, deviation) if believed else -mean
            choice = max(left, key=lambda number, gain=gain: float(gain[number]))
            chosen.append(choice)
            believed[choice] = float(mean[choice])
        return chosen

    def best(self, trained: Mapping[int, float]) -> int:
        """The trained candidate with the least expected loss."""
        mean, _ = self.posterior(trained)
        return min(trained, key=lambda number: float(mean[number]))

    def posterior(self, trained: Mapping[int, float]) -> tuple[Tensor, Tensor]:
        """Means and standard deviations `(n,)` of the losses after training of all candidates.

        Args:
            trained: Number of a candidate -> its loss after training.
        """
        numbers = list(trained)
        values = torch.tensor([trained[number] for number in numbers], dtype=torch.float64)
        level = values.mean() if numbers else torch.zeros((), dtype=torch.float64)
        before = SLOPE[0] * (self._losses - self._losses[numbers].mean() if numbers else self._losses)
        covariance = self._kernel[numbers][:, numbers] + NOISE**2 * torch.eye(len(numbers), dtype=torch.float64)
        # The level is not known: it has a variance of its own, large against all others.
        covariance, cross = covariance + LEVEL, self._kernel[:, numbers] + LEVEL
        # The unit has an inverse gamma prior. The prior mean depends on it, so a few steps find it.
        unit = UNIT
        for _ in range(STEPS):
            residual = values - level - unit * before[numbers]
            energy = float(residual @ torch.linalg.solve(covariance, residual)) if numbers else 0.0
            unit = math.sqrt((CERTAINTY * UNIT**2 + energy) / (CERTAINTY + len(numbers)))
        residual = values - level - unit * before[numbers]
        solved = torch.linalg.solve(covariance, torch.cat([residual[:, None], unit * cross.T], 1))
        mean = level + unit * before + cross @ solved[:, 0]
        variance = unit**2 * (self._kernel.diagonal() + LEVEL) - (unit * cross * solved[:, 1:].T).sum(1)
        return mean, variance.clamp(min=0).sqrt()


def standardised(values: Tensor) -> Tensor:
    """Columns `(n, k)` with mean 0 and standard deviation 1; constant ones are 0."""
    spread = values.std(0, correction=0)
    return (values - values.mean(0)) / torch.where(spread > 0, spread, 1.0)


def expected_improvement(gain: Tensor, deviation: Tensor) -> Tensor:
    """Expected part above zero of normal variables.

    Args:
        gain: Their means.
        deviation: Their standard deviations.

    Source: Jones et al., Efficient Global Optimization of Expensive Black-Box Functions, 1998,
        https://doi.org/10.1023/A:1008306431147, equation 15.
    """
    deviation = deviation.clamp(min=1e-12)
    normal = torch.distributions.Normal(torch.zeros((), dtype=gain.dtype), torch.ones((), dtype=gain.dtype))
    z = gain / deviation
    return gain * normal.cdf(z) + deviation * normal.log_prob(z).exp()
