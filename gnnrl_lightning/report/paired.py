"""Means and paired differences over seeds, with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation.

    Attributes:
        n: Number of values.
        mean: Their mean.
        sd: Their sample standard deviation (divisor n - 1); None for a single value.
    """

    n: int
    mean: float
    sd: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of one or more values."""
        n, mean = len(values), math.fsum(values) / len(values)
        if n == 1:
            return cls(n, mean, None)
        return cls(n, mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)))


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences with its confidence interval, mean +- t sd / sqrt(n).

    Attributes:
        n: Number of pairs.
        mean: Mean of the differences.
        low: Lower end of the interval; None for a single pair.
        high: Upper end of the interval; None for a single pair.
    """

    n: int
    mean: float
    low: float | None
    high: float | None


def paired_difference(first: Mapping[int, float], second: Mapping[int, float] | float) -> Difference | None:
    """Return the mean of `first[seed] - second[seed]` over the seeds in both.

    Args:
        first: Seed -> value.
        second: Seed -> value, or a single value that does not depend on the seed, which is paired with every seed.

    Returns:
        The difference with its 95 % interval by Student's t with n - 1 degrees of freedom; None if no seed is in both.
    """
    if isinstance(second, Mapping):
        differences = [value - second[seed] for seed, value in first.items() if seed in second]
    else:
        differences = [value - second for value in first.values()]
    if not differences:
        return None
    spread = Spread.of(differences)
    if spread.sd is None:
        return Difference(spread.n, spread.mean, None, None)
    reach = float(stdtrit(spread.n - 1, (1 + CONFIDENCE) / 2)) * spread.sd / math.sqrt(spread.n)
    return Difference(spread.n, spread.mean, spread.mean - reach, spread.mean + reach)
