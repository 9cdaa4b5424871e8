"""From the times of operators alone to those of whole networks: factors that are fitted to measured networks.

Several forms are fitted by least squares of the relative error, and the one that predicts each network best from the
others is taken. See `gnnrl_lightning.cost.latency` for the formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

ROUNDINGS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Values of `Correction.rounding` to try."""

RATIOS = (1.0, 0.5, 2.0, 4.0, 8.0, 16.0)
"""Values of `Correction.ratio` to try."""

CACHED = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Values of `Correction.cached` to try."""

ENOUGH = 6
"""Whole networks that tell ratio and load; with fewer, these are 1 and 0."""

LEAST_SCALE = 0.1
"""Smallest scale: the latency must rise with the sum over the operators."""

ALIKE = 0.95
"""Share of the largest sum over the operators above which sums are about the same, and tell the scale alone."""

PRICE, NOTHING = 1.1, 1e-9
"""Factor by which a load must lower the sum of squared errors, and a sum, or share, that is as good as none."""


@dataclass(frozen=True)
class Correction:
    """From the sum over the operators to a whole network.

    Attributes:
        call: Milliseconds of each operator that is present, whatever its widths; below 0 if a call alone takes longer
            than one among others.
        scale: Factor of the times of layers.
        rounding: Share of the way to the next multiple of the processor's lanes that a width counts in layers.
        ratio: Factor of the times of all other operators, relative to `scale`.
        load: Milliseconds of reading a million parameters from memory.
        cached: Millions of parameters that stay in the processor's caches.
    """

    call: float = 0.0
    scale: float = 1.0
    rounding: float = 0.0
    ratio: float = 1.0
    load: float = 0.0
    cached: float = 0.0

    def loading(self, millions: Tensor) -> Tensor:
        """Milliseconds `(...)` of reading parameters.

        Args:
            millions: Millions of parameters `(...)`.
        """
        return self.load * (millions - self.cached).clamp(min=0)


@dataclass(frozen=True)
class Networks:
    """Measured networks, n of them.

    Attributes:
        sums: Rounding -> sums over layers and over other operators, milliseconds, and numbers of calls, `(n, 3)`.
        millions: Millions of parameters `(n,)`.
        least: The shortest time of a layer alone, milliseconds: a call takes no less than minus that, scaled.
        measured: Measured times `(n,)`, milliseconds.
        weights: Weight of each `(n,)`.
    """

    sums: Callable[[float], Tensor]
    millions: Tensor
    least: float
    measured: Tensor
    weights: Tensor


def fitted_correction(networks: Networks) -> Correction:
    """Fit a correction.

    With few networks, ratio and load are not fitted; with a single one, or with several of about the same sum, only the
    scale is.
    """
    enough, fits = len(networks.measured) >= ENOUGH, []
    for rounding in ROUNDINGS:
        layers, others, calls = networks.sums(rounding).unbind(-1)
        for ratio in RATIOS if enough else RATIOS[:1]:
            sums = layers + ratio * others
            error, (call, scale) = _fit(networks, calls, sums)
            fits.append((error, Correction(call, scale, rounding, ratio)))
            for cached in CACHED if enough else ():
                error, (call, scale, load) = _fit(networks, calls, sums, (networks.millions - cached).clamp(min=0))
                if load >= 0:
                    fits.append((PRICE * error, Correction(call, scale, rounding, ratio, load, cached)))
    return min(fits, key=lambda fit: fit[0])[1]


def fitted_alike(networks: Networks, like: Correction) -> Correction:
    """Fit call and scale alone: a few networks of about the same widths do not tell the rest.

    Args:
        networks: The networks.
        like: The correction that is fitted again. Its load changes with the scale.
    """
    layers, others, calls = networks.sums(like.rounding).unbind(-1)
    loading = like.loading(networks.millions) / like.scale
    _, (call, scale) = _fit(networks, calls, layers + like.ratio * others + loading)
    return replace(like, call=call, scale=scale, load=like.load * scale / like.scale)


def _fit(networks: Networks, calls: Tensor, sums: Tensor, *further: Tensor) -> tuple[float, list[float]]:
    """Fit the factors of calls, sums and further columns `(n,)`.

    Returns:
        Sum of squared relative errors, those of predictions from all other networks if they are enough; the factors.
    """
    if float(sums.min()) < ALIKE * float(sums.max()):
        error, (call, scale, *others) = _solve(networks, calls, sums, *further)
        if call < -networks.least * scale:
            error, (scale, *others) = _solve(networks, sums - networks.least * calls, *further)
            call = -networks.least * scale
        if scale >= LEAST_SCALE:
            return error, [call, scale, *others]
    slopes = sums / networks.measured
    scale = float((networks.weights * slopes).sum() / (networks.weights * slopes.square()).sum())
    scale = max(scale, LEAST_SCALE)
    error = float((networks.weights * (scale * slopes - 1).square()).sum())
    return max(error, NOTHING), [0.0, scale, *(0.0 for _ in further)]


def _solve(networks: Networks, *columns: Tensor) -> tuple[float, list[float]]:
    """Solve the weighted least squares of the relative error without bounds."""
    root = networks.weights.sqrt()
    rows = torch.stack([root * column / networks.measured for column in columns], 1)
    factors = torch.linalg.lstsq(rows, root[:, None]).solution[:, 0]
    errors = rows @ factors - root
    if len(errors) >= ENOUGH:  # leave one out
        errors = errors / (1 - torch.linalg.qr(rows).Q.square().sum(1)).clamp(min=NOTHING)
    error = float(errors.square().sum())
    return max(error, NOTHING) if math.isfinite(error) else math.inf, factors.tolist()
