"""User-defined lowest and highest widths of groups, by name or glob.

```
graph = gnnrl_lightning.trace(network, inputs, limits={"layer3.*": GroupLimit(min=0.25, max=48)})
```
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.checks import shown
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.tracing.groups import ChannelGroup
from gnnrl_lightning.tracing.patterns import matches, nothing_matches

OPTION = "groups.limits"

NONE = 0.25
"""Width that stands for no channel in logarithms and ratios: it is as far below half a channel, which rounds to none,
as one channel is above."""


def positive(widths: Tensor) -> Tensor:
    """Widths `(..., G)`, floating-point, of which logarithms can be taken: `NONE` for groups that are absent."""
    return widths.clamp(min=NONE)


def log_keep(widths: Tensor, dense: Tensor) -> Tensor:
    """Logarithms of the keep ratios `(..., G)` float64 of widths, finite.

    Args:
        widths: Widths `(..., G)`.
        dense: Dense widths `(G,)`.
    """
    return (positive(widths.double()) / dense).log()


@dataclass(frozen=True)
class GroupLimit:
    """Limits on the width of a group, each a share of the dense width or a number of channels per index set.

    Args:
        min: Lowest width: 0.25 and 25% are shares, rounded up; whole numbers from 2 on are channels. A group with fewer
            channels keeps all of them. None: the budget's `min_width`.
        max: Highest width in the same format, rounded down, at least one channel. The group is narrowed to it even if
            the budget does not require that. None: the dense width.

    Raises:
        UserError: A value is neither a share nor a number of channels, or no value is given.
    """

    min: float | str | None = None
    max: float | str | None = None

    def __post_init__(self) -> None:
        if self.min is None and self.max is None:
            raise UserError(f"{OPTION} has an entry without limits: give min, max or both, for example min: 25%")
        for name in ("min", "max"):
            value = getattr(self, name)
            if value is not None:
                _share_or_channels(value, name)

    def lowest(self, width: int) -> int:
        """Lowest width of a group with the dense width `width`."""
        if self.min is None:
            return 1
        value = _share_or_channels(self.min, "min")
        return min(width, value if isinstance(value, int) else math.ceil(value * width - 1e-9))

    def highest(self, width: int) -> int:
        """Highest width of a group with the dense width `width`."""
        if self.max is None:
            return width
        value = _share_or_channels(self.max, "max")
        return min(width, value if isinstance(value, int) else max(1, math.floor(value * width + 1e-9)))


def _share_or_channels(given: float | str, name: str) -> int | float:
    """Parse a number of channels (int) or a share (float)."""
    expected = "expected a share of the dense width (0.25 or 25%) or a number of channels (2 or more)"
    refused = UserError(f"{OPTION} has {name} {shown(given)}: {expected}")
    if not isinstance(given, (str, Real)) or isinstance(given, bool):
        raise refused
    try:
        percent = isinstance(given, str) and given.strip().endswith("%")
        value = float(str(given).strip().removesuffix("%"))
    except (ValueError, OverflowError) as error:
        raise refused from error
    if percent and 0 < value <= 100:
        return value / 100
    if not percent and value == 1:
        raise UserError(f"{OPTION} has {name} 1, which may mean one channel or all of them: {expected}; 100% is all")
    if not percent and 0 < value < 1:
        return value
    if not percent and value > 1 and value.is_integer():
        return int(value)
    raise refused


Limits = Mapping[str, GroupLimit | Mapping[str, float | str | None]]
"""Name of a group or of the module that makes its channels, or glob -> limits, as an object or a mapping."""


@dataclass(frozen=True)
class WidthRanges:
    """Lowest and highest width of each group.

    Attributes:
        names: Names of the groups.
        lowest: `(G,)` int64.
        highest: `(G,)` int64.
        stays: Whether the user gives a lowest width, so that the group may not go entirely, `(G,)` bool.
    """

    names: tuple[str, ...]
    lowest: Tensor
    highest: Tensor
    stays: Tensor

    @classmethod
    def of(cls, groups: Sequence[ChannelGroup], limits: Limits | None = None) -> WidthRanges:
        """Make the ranges of groups; all limits that match a group apply.

        Args:
            groups: Prunable groups.
            limits: Pattern -> limits; None: no limits.

        Raises:
            UserError: A pattern matches no group, or the limits of a group contradict each other.
        """
        if limits is not None and not isinstance(limits, Mapping):
            raise UserError(f"{OPTION} is {shown(limits)}: expected {{group: {{min: ..., max: ...}}}}")
        lowest, highest = [group.least for group in groups], [group.width for group in groups]
        stays = torch.zeros(len(groups), dtype=torch.bool)
        modules = [_modules(group) for group in groups]
        for pattern, given in (limits or {}).items():
            limit = as_limit(pattern, given)
            found = [i for i, names in enumerate(modules) if any(matches(pattern, name) for name in names)]
            if not found:
                names = list(dict.fromkeys(name for names in modules for name in names))
                raise nothing_matches(OPTION, pattern, "group that can be pruned", names)
            for i in found:
                lowest[i] = max(lowest[i], limit.lowest(groups[i].width))
                highest[i] = min(highest[i], limit.highest(groups[i].width))
                stays[i] |= limit.min is not None
        for group, low, high in zip(groups, lowest, highest, strict=True):
            if low > high:
                raise UserError(
                    f"{OPTION} leaves {group.name} no width: at least {low} and at most {high} of its {group.width} "
                    "channels; change one of them"
                )
        names = tuple(group.name for group in groups)
        return cls(names, torch.tensor(lowest, dtype=torch.int64), torch.tensor(highest, dtype=torch.int64), stays)

    def narrowed(self, groups: Sequence[ChannelGroup]) -> WidthRanges:
        """Return the same ranges for a network that was pruned from this one.

        Args:
            groups: Its prunable groups, at most as wide as those of the same name here.
        """
        own = {name: number for number, name in enumerate(self.names)}
        found = [own.get(group.name) for group in groups]
        dense = [group.width for group in groups]
        pairs = [*zip(found, dense, strict=True)]
        lowest = [1 if number is None else min(int(self.lowest[number]), width) for number, width in pairs]
        highest = [width if number is None else min(int(self.highest[number]), width) for number, width in pairs]
        stays = [number is not None and bool(self.stays[number]) for number in found]
        low, high = (torch.tensor(each, dtype=torch.int64) for each in (lowest, highest))
        return WidthRanges(tuple(group.name for group in groups), low, high, torch.tensor(stays, dtype=torch.bool))

    def hold(self, widths: Tensor) -> Tensor:
        """Which candidates `(..., G)` lie within the ranges: bool `(...)`."""
        return ((widths >= self.lowest) & (widths <= self.highest)).all(-1)


def as_limit(pattern: str, given: GroupLimit | Mapping[str, float | str | None]) -> GroupLimit:
    """Return a limit unchanged, or make one from a mapping with the keys min and max."""
    if isinstance(given, GroupLimit):
        return given
    if not isinstance(given, Mapping) or not given.keys() <= {"min", "max"}:
        raise UserError(
            f"{OPTION} {shown(pattern)} is {shown(given)}: expected min, max or both, for example {{min: 25%}}"
        )
    return GroupLimit(**given)


def _modules(group: ChannelGroup) -> list[str]:
    """Return the names of the group, of the modules that make its channels, and of their parent modules."""
    names = {group.name: None}
    for member in group.members:
        if member.role == "output":
            parts = member.parameter.split(".")[:-1]
            names |= {".".join(parts[: end + 1]): None for end in reversed(range(len(parts)))}
    return list(names)


def as_proposals(given: Any, groups: int) -> Tensor:
    """Return proposals of widths `(..., G)`.

    Args:
        given: A tensor, or what makes one.
        groups: G.

    Raises:
        UserError: It makes none, has another number of groups, or values that are not finite.
    """
    found = _finite(given)
    if found.dim() == 0 or found.shape[-1] != groups:
        raise UserError(f"widths has the shape {tuple(found.shape)}: expected (..., {groups}), one for each group")
    return found


def as_whole(given: Any, groups: int) -> Tensor:
    """Return the widths of one candidate `(G,)` int64.

    Args:
        given: A tensor, or what makes one.
        groups: G.

    Raises:
        UserError: As `as_proposals`, or a width is no whole number.
    """
    found = _finite(given)
    if found.shape != (groups,):
        raise UserError(f"widths has the shape {tuple(found.shape)}: expected ({groups},)")
    if bool((found != found.to(torch.int64)).any()):
        raise UserError(f"widths is {found.tolist()}: expected whole numbers of channels")
    return found.to(torch.int64)


def check_within(widths: Tensor, dense: Tensor, names: Sequence[str]) -> None:
    """Refuse proposals of widths that no group can have.

    Args:
        widths: Proposals `(..., G)`.
        dense: Dense widths `(G,)`.
        names: Names of the groups.

    Raises:
        UserError: A width is below 0, or above the dense one; the message names the first group.
    """
    outside = ((widths < 0) | (widths > dense)).reshape(-1, len(dense))
    for row, group in outside.nonzero()[:1].tolist():
        value = widths.reshape(outside.shape)[row, group].item()
        raise UserError(f"the width of {names[group]} is {value:g}: expected 0 to {int(dense[group])} channels")


def _finite(given: Any) -> Tensor:
    try:
        found = torch.as_tensor(given)
    except Exception as error:  # whatever the conversion of an object of the user's raises
        raise UserError(f"widths is a {type(given).__name__}, of which there is no tensor: expected numbers") from error
    if found.dtype == torch.bool or found.is_complex() or not bool(found.isfinite().all()):
        raise UserError(f"widths is {shown(found.tolist())}: expected finite numbers")
    return found
