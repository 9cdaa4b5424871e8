"""Allowed widths of groups, and the projection of proposals onto limits.

The projection first scales the proposed widths by the largest common factor that fits, then widens groups one aligned
step at a time, groups furthest below their proposal first, until no group can be widened. The result meets every limit,
and no group could be one step wider.

Groups that may be removed entirely are absent if less than half a channel is proposed, or if groups without which they
are of no use are absent. They stay absent whatever the budget leaves; other groups are removed only if the budget
cannot be met with one channel of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gnnrl_lightning.cost.metrics import Cost
from gnnrl_lightning.cost.ranges import WidthRanges, positive
from gnnrl_lightning.errors import UserError

BISECTIONS = 40
"""Number of bisection steps on the common factor; the remaining error is far below one channel."""

SCANNED = 128
"""Number of common factors that are tried before the bisection if a cost is not monotone."""

HALF = 0.5
"""Proposals of at most this many channels are rounded to none, where a group may be removed entirely."""

Limits = Mapping[str, float | Tensor]
"""Metric -> absolute upper limit, for all candidates or for each candidate `(B,)`."""


@dataclass(frozen=True)
class AllowedWidths:
    """The allowed widths of each group.

    Args:
        dense: Dense widths `(G,)`.
        sets: Index sets of each group `(G,)`: the tensors' dimensions have `sets * width` channels; 0: it has none,
            and neither the alignment nor the smallest number of channels concerns it.
        channel_multiple: Alignment of the tensors' dimensions.
        min_width: Smallest number of channels.
        ranges: The user's lowest and highest width for each group; None: no limits.
        removable: Whether a group may be removed entirely `(G,)`; None: none may.
        useless: Groups of no use without the group of the row `(G, G)`, see `gnnrl_lightning.surgery.removable`.

    Attributes:
        step: Difference between neighbouring widths `(G,)`.
        present: Lowest allowed widths above 0 `(G,)`.
        lowest: Lowest allowed widths `(G,)`.
        highest: Highest allowed widths `(G,)`.

    Raises:
        UserError: A group has no allowed width.
    """

    dense: Tensor
    sets: Tensor
    channel_multiple: int = 1
    min_width: int = 1
    ranges: WidthRanges | None = None
    removable: Tensor | None = None
    useless: Tensor | None = None
    step: Tensor = field(init=False)
    present: Tensor = field(init=False)
    lowest: Tensor = field(init=False)
    highest: Tensor = field(init=False)

    def __post_init__(self) -> None:
        multiple = torch.full_like(self.dense, self.channel_multiple)
        step = multiple // torch.gcd(multiple, self.sets)
        smallest, highest = torch.where(self.sets > 0, max(self.min_width, 1), 1), self.dense
        if self.ranges is not None:
            smallest, top = torch.maximum(smallest, self.ranges.lowest), self.ranges.highest
            highest = torch.where(top >= self.dense, self.dense, top // step * step)
        present = self.up(smallest, step)
        lowest = present if self.removable is None else torch.where(self.removable, 0, present)
        for name, tensor in (("step", step), ("present", present), ("lowest", lowest), ("highest", highest)):
            object.__setattr__(self, name, tensor)
        if bool((present > highest).any()):
            group = int((present > highest).nonzero()[0])
            self._refuse(group, min(int(smallest[group]), int(self.dense[group])))

    def _refuse(self, group: int, smallest: int) -> None:
        assert self.ranges is not None, "only a user's limit makes a highest width below the lowest one"
        unit = "channels" if int(self.sets[group]) else "parts"  # of a mask
        aligned = f" in steps of {int(self.step[group])}" if int(self.step[group]) > 1 else ""
        raise UserError(
            f"groups.limits and the budget leave {self.ranges.names[group]} no width{aligned}: at least {smallest} and "
            f"at most {int(self.ranges.highest[group])} of its {int(self.dense[group])} {unit} "
            f"(budget.min_width is {self.min_width}, budget.channel_multiple {self.channel_multiple}); "
            "change one of them"
        )

    def up(self, widths: Tensor, step: Tensor) -> Tensor:
        """Round up to aligned widths, at most dense."""
        return torch.minimum(((widths + step - 1) // step) * step, self.dense)

    def down(self, widths: Tensor) -> Tensor:
        """Round down to allowed widths, at least the lowest."""
        return self.between(widths, self.lowest, self.highest)

    def between(self, widths: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
        """Round down to aligned widths within a range."""
        aligned = torch.where(widths >= self.dense, self.dense, widths // self.step * self.step)
        return torch.maximum(torch.minimum(aligned, highest), lowest)

    def wider(self, widths: Tensor) -> Tensor:
        """Widen by one step, at most to the highest widths."""
        return torch.minimum((widths // self.step + 1) * self.step, self.highest)

    def absent(self, widths: Tensor) -> Tensor:
        """Which groups proposals `(..., G)` remove entirely, bool `(..., G)`."""
        if self.removable is None:
            return torch.zeros(widths.shape, dtype=torch.bool)
        gone = (widths <= HALF) & self.removable
        while self.useless is not None:
            more = gone | ((gone.double() @ self.useless.double()) > 0)
            if torch.equal(more, gone):
                break
            gone = more
        return gone

    def round(self, widths: Tensor) -> Tensor:
        """Round proposals `(..., G)` to the nearest channel within the ranges, whatever the alignment."""
        lowest = torch.where(self.sets > 0, self.dense.clamp(max=self.min_width), 1)
        highest = self.dense
        if self.ranges is not None:
            lowest, highest = torch.maximum(lowest, self.ranges.lowest), self.ranges.highest
        rounded = torch.minimum(torch.maximum(widths.round().long(), lowest), highest)
        return rounded.masked_fill(self.absent(widths), 0)

    def hold(self, widths: Tensor) -> Tensor:
        """Which candidates `(..., G)` lie within the user's ranges, or lack groups that may go: bool `(...)`."""
        if self.ranges is None:
            return torch.ones(widths.shape[:-1], dtype=torch.bool)
        if self.removable is not None:
            widths = torch.where(self.removable & (widths == 0), self.ranges.lowest, widths)
        return self.ranges.hold(widths)


def fits(costs: Mapping[str, Cost], widths: Tensor, limits: Limits) -> Tensor:
    """Which candidates `(..., G)` meet every limit: bool `(...)`."""
    met = torch.ones(widths.shape[:-1], dtype=torch.bool)
    for name, limit in limits.items():
        met &= costs[name](widths) <= limit
    return met


def project(
    costs: Mapping[str, Cost], allowed: AllowedWidths, widths: Tensor, limits: Limits, monotone: bool = True
) -> Tensor:
    """Project a proposal: the nearest widths that meet every limit and cannot be widened.

    Groups that the proposal lacks stay absent, see the module's docstring.

    1. Bisection finds the largest s for which `down(s * proposal)` fits. If a cost is not monotone, the bisection
       starts from the largest of some evenly spaced s that fits.
    2. The group whose width is the smallest fraction of its proposal (ties: the first) grows by one aligned step, among
       the groups that still fit, until none does. If a cost is not monotone, groups that did not fit are tried again
       after others have grown.

    Args:
        costs: Metric -> cost function of widths.
        allowed: Allowed widths.
        widths: Proposals `(B, G)`, float or integer.
        limits: Absolute limits, for all candidates or for each candidate; the lowest widths must meet them.
        monotone: Whether no cost rises when a group is narrowed.

    Returns:
        int64 `(B, G)`.
    """
    if not allowed.dense.numel():
        return widths.long()
    bounds = {name: torch.as_tensor(limit, dtype=torch.float64).expand(len(widths)) for name, limit in limits.items()}
    meeting = _Meeting(costs, allowed, bounds, monotone)
    absent = allowed.absent(widths)
    lowest = torch.where(absent, 0, allowed.present)
    if allowed.removable is None or not bool((short := ~meeting.fits(lowest)).any()):
        return meeting.nearest(widths, lowest, absent)
    lowest[short] = allowed.lowest
    found = meeting.nearest(widths, lowest, absent)
    # These have lost groups; now that it is known which, others that are of no use without them go, too.
    left = found[short]
    absent = allowed.absent(left)
    lowest = torch.where(absent, 0, torch.minimum(left, allowed.present))
    found[short] = meeting.of(short).nearest(left, lowest, absent)
    return found


@dataclass(frozen=True)
class _Meeting:
    """How candidates are made to meet limits.

    Args:
        costs: Metric -> cost function of widths.
        allowed: Allowed widths.
        limits: Absolute limits `(B,)`.
        monotone: Whether no cost rises when a group is narrowed.
    """

    costs: Mapping[str, Cost]
    allowed: AllowedWidths
    limits: Mapping[str, Tensor]
    monotone: bool

    def of(self, rows: Tensor) -> _Meeting:
        """The same with the limits of some candidates."""
        return replace(self, limits={name: limit[rows] for name, limit in self.limits.items()})

    def fits(self, widths: Tensor) -> Tensor:
        """Which candidates `(B, G)` meet their limits: bool `(B,)`."""
        return fits(self.costs, widths, self.limits)

    def nearest(self, widths: Tensor, lowest: Tensor, absent: Tensor) -> Tensor:
        """Project proposals `(B, G)` with lowest widths `(B, G)` of their own, without the absent groups `(B, G)`."""
        allowed = self.allowed
        proposal = torch.minimum(torch.maximum(widths.double(), lowest.double()), allowed.dense.double())
        proposal = positive(proposal)
        highest = torch.where(absent, 0, allowed.highest)

        def scaled(factor: Tensor) -> Tensor:
            return allowed.between((factor[:, None] * proposal + 1e-9).floor().long(), lowest, highest)

        low, high = torch.zeros(len(proposal), dtype=torch.float64), (allowed.dense / proposal).amax(1)
        if self.monotone:
            low = torch.where(self.fits(scaled(high)), high, low)
        else:
            for step in range(1, SCANNED + 1):
                factor = high * step / SCANNED
                low = torch.where(self.fits(scaled(factor)), factor, low)
            high = torch.minimum(low + high / SCANNED, high)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            fit = self.fits(scaled(middle))
            low, high = torch.where(fit, middle, low), torch.where(fit, high, middle)
        return self._grow(scaled(low), proposal, highest)

    def _grow(self, widths: Tensor, proposal: Tensor, highest: Tensor) -> Tensor:
        """Widen groups one step at a time until none can be widened."""
        while True:
            grown = self._sweep(widths, proposal, highest)
            # With monotone costs, a group that does not fit never fits later.
            if self.monotone or torch.equal(grown, widths):
                return grown
            widths = grown

    def _sweep(self, widths: Tensor, proposal: Tensor, highest: Tensor) -> Tensor:
        """Widen groups one step at a time, each until it does not fit for the first time."""
        widths = widths.clone()
        closed = widths >= highest
        rows = torch.arange(len(widths))
        while len(rows := rows[~closed[rows].all(1)]):
            fraction = torch.where(closed[rows], torch.inf, widths[rows] / proposal[rows])
            group = fraction.argmin(1)
            stepped = widths[rows]
            stepped.scatter_(1, group[:, None], self.allowed.wider(stepped).gather(1, group[:, None]))
            fit = self.of(rows).fits(stepped)
            widths[rows] = torch.where(fit[:, None], stepped, widths[rows])
            closed[rows, group] = ~fit | (widths[rows, group] >= highest[rows, group])
        return widths
