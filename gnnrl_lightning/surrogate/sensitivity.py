"""The sensitivity of a network: the loss from narrowing one group alone, for every group and width.

It scores a candidate in microseconds by summing the losses over groups. See `gnnrl_lightning.surrogate.measures` for
how it is measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gnnrl_lightning.cost.projection import AllowedWidths
from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.files import replacing
from gnnrl_lightning.tensor_files import save_tensors

RATIOS = (0.0, 0.1, 0.3, 0.6, 0.85)
"""Keep ratios at which losses are measured, 0 standing for one channel; square roots of losses are interpolated.

One channel is measured because nothing else tells what is lost there: wide layers lose nothing at a tenth of their
channels and everything at one. Without it, half of the MACs of a VGG-16 left 30 % top-1 by dynamic programming, and
with it 89 %.
"""

NO_CHANNEL = -1.0
"""Keep ratio that stands for no channel of groups that may be removed entirely, and for one of all others."""


def ratios_for(allowed: AllowedWidths | None) -> tuple[float, ...]:
    """Keep ratios at which losses are measured if groups may have these widths; None: at least one channel."""
    return RATIOS if allowed is None or allowed.removable is None else (NO_CHANNEL, *RATIOS)


@dataclass(frozen=True)
class Sensitivity:
    """The loss from narrowing one group alone.

    Attributes:
        ratios: Measured keep ratios `(K,)`, ascending.
        measured: Losses at these ratios `(G, K)` float64, at least 0.
        losses: Losses at all widths `(G, W + 1)` float64; column w is width w, and losses from the dense width on are
            0. They never rise with the width.
        examples: Number of forward passes of one example that the measurement took.
        passes: Names of its additional passes over the calibration examples, see `Pruner.passes`.
    """

    ratios: tuple[float, ...]
    measured: Tensor
    losses: Tensor
    examples: int = 0
    passes: tuple[str, ...] = ()

    @classmethod
    def interpolate(
        cls,
        dense: Tensor,
        ratios: Sequence[float],
        measured: Tensor,
        examples: int = 0,
        passes: tuple[str, ...] = (),
        removable: Tensor | None = None,
    ) -> Sensitivity:
        """Interpolate losses at a few keep ratios to all widths.

        Args:
            dense: Dense widths `(G,)`.
            ratios: Keep ratios below 1, ascending; the measured widths are `widths_at(dense, ratio, removable)`.
            measured: Losses `(G, K)`.
            examples: Number of forward passes of one example that the measurement took.
            passes: Names of additional passes over the calibration examples.
            removable: Whether groups may be removed entirely `(G,)`; None: none may.
        """
        losses = torch.zeros(len(dense), int(dense.max()) + 1 if len(dense) else 1, dtype=torch.float64)
        known = torch.stack([widths_at(dense, ratio, removable) for ratio in ratios], 1)
        # A narrower group is never better; measurements that show otherwise are noise.
        rising = measured.double().clamp(min=0).sqrt().flip(1).cummax(1).values.flip(1)
        for group, width in enumerate(dense.tolist()):
            points: dict[int, float] = {width: 0.0}
            for at, value in zip(known[group].tolist(), rising[group].tolist(), strict=True):
                points.setdefault(at, value)
            xs = torch.tensor(sorted(points), dtype=torch.float64)
            ys = torch.tensor([points[int(x)] for x in xs], dtype=torch.float64)
            losses[group, : width + 1] = _interpolate(torch.arange(width + 1.0, dtype=torch.float64), xs, ys).square()
        return cls(tuple(ratios), measured.double(), losses, examples, passes)

    def of_groups(self, widths: Tensor) -> Tensor:
        """Loss of each group `(..., G)` at integer widths `(..., G)`."""
        groups = torch.arange(len(self.losses))
        return self.losses[groups, widths.clamp(max=self.losses.shape[1] - 1)]

    def __call__(self, widths: Tensor) -> Tensor:
        """Loss of each candidate `(...)`: the sum over the groups of `widths (..., G)`."""
        return self.of_groups(widths).sum(-1)

    @property
    def statistics(self) -> Tensor:
        """Logarithms of the measured losses `(G, K)`, finite, for the state graph."""
        return self.measured.clamp(min=1e-8).log()


def widths_at(dense: Tensor, ratio: float, removable: Tensor | None = None) -> Tensor:
    """Widths `(G,)` at a keep ratio: rounded, at least 1, at most dense; 0 at `NO_CHANNEL` where `removable (G,)`."""
    widths = torch.minimum((dense * ratio).round().long().clamp(min=1), dense)
    return widths if removable is None or ratio >= 0 else widths.masked_fill(removable, 0)


def _interpolate(at: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """Interpolate piecewise linearly, extrapolating the first piece to the left; `xs` ascend."""
    if len(xs) == 1:
        return torch.zeros_like(at)
    right = torch.searchsorted(xs, at).clamp(1, len(xs) - 1)
    left = right - 1
    slope = (ys[right] - ys[left]) / (xs[right] - xs[left])
    return ys[left] + slope * (at - xs[left])


def save_sensitivity(sensitivity: Sensitivity, path: Path) -> None:
    """Write a sensitivity to a safetensors file.

    Args:
        sensitivity: The sensitivity.
        path: Path of the file, `.safetensors`.
    """
    beside = {"ratios": sensitivity.ratios, "examples": sensitivity.examples, "passes": sensitivity.passes}
    tensors = {"measured": sensitivity.measured, "losses": sensitivity.losses}
    with replacing(path) as partial:
        save_tensors(tensors, partial, {"beside": json.dumps(beside)})


def load_sensitivity(path: Path) -> Sensitivity:
    """Read a file written by `save_sensitivity`.

    Raises:
        UserError: The file is damaged or has other contents.
    """
    try:
        with safe_open(path, "pt") as file:
            beside = json.loads(file.metadata()["beside"])
            measured, losses = file.get_tensor("measured"), file.get_tensor("losses")
        return Sensitivity(tuple(beside["ratios"]), measured, losses, beside["examples"], tuple(beside["passes"]))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({one_line(error)}): expected a sensitivity; remove the file to measure it again"
        ) from error
