"""Factors that turn the times of single operators into those of whole networks, fitted to measured networks.

Several forms are fitted by least squares of the relative error, and the one that predicts each network best from the
others is taken. See `gnnrl_lightning.cost.latency` for the formula.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gnnrl_lightning.cost.grid import LANES

ROUNDINGS = (*((share, LANES) for share in (0.0, 0.25, 0.5, 0.75, 1.0)), (0.5, 2 * LANES), (1.0, 2 * LANES))
"""Values of `Correction.rounding` and `Correction.lanes` to try."""

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
        lanes: Channels that the processor computes together.
    """

    call: float = 0.0
    scale: float = 1.0
    rounding: float = 0.0
    ratio: float = 1.0
    load: float = 0.0
    cached: float = 0.0
    lanes: int = LANES

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
        sums: Rounding and lanes -> sums over layers and over other operators, milliseconds, and numbers of calls,
            `(n, 3)`.
        millions: Millions of parameters `(n,)`.
        least: The shortest time of a layer alone, milliseconds: a call takes no less than minus that, scaled.
        measured: Measured times `(n,)`, milliseconds.
        weights: Weight of each `(n,)`.
    """

    sums: Callable[[float, int], Tensor]
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
    ratios, cached = (RATIOS, CACHED) if enough else (RATIOS[:1], ())
    forms = [*itertools.product(ratios, cached)]
    read = torch.stack([(networks.millions - stay).clamp(min=0) for _, stay in forms]) if forms else None
    for rounding, lanes in ROUNDINGS:
        layers, others, calls = networks.sums(rounding, lanes).unbind(-1)
        fit = _fit(networks, torch.stack([layers + ratio * others for ratio in ratios]), calls)
        for ratio, error, (call, scale) in zip(ratios, *fit, strict=True):
            fits.append((error, Correction(call, scale, rounding, ratio, lanes=lanes)))
        if read is None:
            continue
        fit = _fit(networks, torch.stack([layers + ratio * others for ratio, _ in forms]), calls, read)
        for (ratio, stay), error, (call, scale, load) in zip(forms, *fit, strict=True):
            if load >= 0:
                fits.append((PRICE * error, Correction(call, scale, rounding, ratio, load, stay, lanes)))
    return min(fits, key=lambda fit: fit[0])[1]


def fitted_alike(networks: Networks, like: Correction) -> Correction:
    """Fit call and scale alone: a few networks of about the same widths do not tell the rest.

    Args:
        networks: The networks.
        like: The correction that is fitted again. Its load changes with the scale.
    """
    layers, others, calls = networks.sums(like.rounding, like.lanes).unbind(-1)
    loading = like.loading(networks.millions) / like.scale
    _, ((call, scale),) = _fit(networks, (layers + like.ratio * others + loading)[None], calls)
    return replace(like, call=call, scale=scale, load=like.load * scale / like.scale)


def _fit(
    networks: Networks, sums: Tensor, calls: Tensor, further: Tensor | None = None
) -> tuple[list[float], list[list[float]]]:
    """Fit the factors of calls, of sums and of a further column, for F forms at once.

    Args:
        networks: The networks.
        sums: Sums over the operators `(F, n)`.
        calls: Numbers of calls `(n,)`.
        further: The further column `(F, n)`; None: there is none.

    Returns:
        Sums of squared relative errors, those of predictions from all other networks if they are enough; the factors.
    """
    columns = [] if further is None else [further]
    slopes = sums / networks.measured
    scale = (networks.weights * slopes).sum(1) / (networks.weights * slopes.square()).sum(1)
    scale = scale.clamp(min=LEAST_SCALE)
    error = (networks.weights * (scale[:, None] * slopes - 1).square()).sum(1)
    factors = torch.stack([torch.zeros_like(scale), scale, *(torch.zeros_like(scale) for _ in columns)], 1)
    differ = sums.amin(1) < ALIKE * sums.amax(1)
    if bool(differ.any()):
        free, found = _solve(networks, calls.expand_as(sums), sums, *columns)
        bounded, rest = _solve(networks, sums - networks.least * calls, *columns)
        rest = torch.cat([-networks.least * rest[:, :1], rest], 1)
        lowest = found[:, 0] < -networks.least * found[:, 1]
        free, found = torch.where(lowest, bounded, free), torch.where(lowest[:, None], rest, found)
        taken = differ & (found[:, 1] >= LEAST_SCALE) & free.isfinite()
        error, factors = torch.where(taken, free, error), torch.where(taken[:, None], found, factors)
    return error.clamp(min=NOTHING).tolist(), factors.tolist()


def _solve(networks: Networks, *columns: Tensor) -> tuple[Tensor, Tensor]:
    """Solve F weighted least squares of the relative error, without bounds.

    Args:
        networks: The networks.
        columns: k of them `(F, n)`.

    Returns:
        Sums of squared errors `(F,)` and factors `(F, k)`.
    """
    root = networks.weights.sqrt()
    rows = torch.stack([root * column / networks.measured for column in columns], -1)
    factors = torch.linalg.lstsq(rows, root[:, None].expand(len(rows), -1, 1)).solution
    errors = (rows @ factors)[..., 0] - root
    if len(root) >= ENOUGH:  # leave one out
        errors = errors / (1 - torch.linalg.qr(rows).Q.square().sum(-1)).clamp(min=NOTHING)
    return errors.square().sum(-1), factors[..., 0]
