"""What a surrogate observes of a function: values of candidates, and slopes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

STEP = 0.25
"""Change of a log keep ratio, either way, over which a slope is taken."""


@dataclass(frozen=True)
class Slopes:
    """Derivatives of a candidate's log loss by the log keep ratios of its groups.

    Attributes:
        widths: The candidate `(G,)`.
        values: The derivatives `(G,)` float64; NaN: not known.
        bias: Standard deviations `(G,)` of the error that all slopes of a group share.
        noise: Standard deviations `(G,)` of the rest.
    """

    widths: Tensor
    values: Tensor
    bias: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Observations:
    """Values of candidates, and slopes: differences of pairs of points.

    Attributes:
        points: Candidates `(n + 2 k, G)`: evaluated ones, upper points of the k slopes, lower ones.
        spans: Differences of the points' log keep ratios `(k,)`.
        observed: Values and slopes `(n + k,)`.
        bias: Standard deviation of the error that each observation shares with others of its group `(n + k, G)`.
        noise: Standard deviations `(n + k,)`; those of values are relative to the prior's.
    """

    points: Tensor
    spans: Tensor
    observed: Tensor
    bias: Tensor
    noise: Tensor

    @classmethod
    def of(cls, dense: Tensor, widths: Tensor, values: Tensor, slopes: Sequence[Slopes]) -> Observations:
        """Observations of evaluated candidates `(n, G)`, their values `(n,)`, and slopes."""
        groups, double = len(dense), torch.float64
        upper, lower, spans, found, bias, noise = [], [], [], [], [], []
        for each in slopes:
            start = each.widths.double()
            up = torch.maximum((start * math.exp(STEP)).round(), start + 1).minimum(dense.double())
            down = torch.minimum((start * math.exp(-STEP)).round(), start - 1).clamp(min=1.0)
            known = ((up > down) & each.values.isfinite()).nonzero()[:, 0]
            rows = each.widths.long().repeat(len(known), 1)
            index = torch.arange(len(known)), known
            upper.append(rows.index_put(index, up[known].long()))
            lower.append(rows.index_put(index, down[known].long()))
            spans.append((up / down).log()[known])
            found.append(each.values[known])
            bias.append(torch.zeros(len(known), groups, dtype=double).index_put(index, each.bias[known]))
            noise.append(each.noise[known])
        count = len(values)
        return cls(
            torch.cat([widths.long(), *upper, *lower]),
            torch.cat([torch.zeros(0, dtype=double), *spans]),
            torch.cat([values.double(), *found]),
            torch.cat([torch.zeros(count, groups, dtype=double), *bias]),
            torch.cat([torch.ones(count, dtype=double), *noise]),
        )

    @property
    def count(self) -> int:
        """Number of values n."""
        return len(self.observed) - len(self.spans)

    def scaled(self, unit: float) -> Observations:
        """The observations with slopes in units of the values."""
        factor = torch.ones_like(self.observed)
        factor[self.count :] = unit
        return replace(self, observed=self.observed * factor, bias=self.bias * unit, noise=self.noise * factor)

    def doubted(self, factor: float) -> Observations:
        """The observations with errors of slopes multiplied by a factor."""
        factors = torch.ones_like(self.noise)
        factors[self.count :] = factor
        return replace(self, bias=self.bias * factor, noise=self.noise * factors)

    def combined(self, at_points: Tensor) -> Tensor:
        """What is observed of functions, `(n + k, ...)`, from their values at the points `(n + 2 k, ...)`."""
        values, upper, lower = at_points.split([self.count, len(self.spans), len(self.spans)])
        return torch.cat([values, (upper - lower) / self.spans.view(-1, *(1,) * (at_points.dim() - 1))])

    def deviations(self, noise: float | Tensor) -> Tensor:
        """Standard deviations `(n + k,)` of the noise, if that of a value is given."""
        factor = torch.ones_like(self.noise)
        factor[: self.count] = noise
        return self.noise * factor
