"""Channel groups, frozen channels, and the channels of a network by group.

Channels that occur in exactly the same tensor dimensions are interchangeable: they form an *index set*. Index sets that
must keep equal counts form one group, see `gnnrl_lightning.tracing.forming`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from gnnrl_lightning.tracing.axes import Axis


@dataclass(frozen=True)
class Member:
    """A dimension of a parameter or buffer along which the channels of a group lie.

    Attributes:
        parameter: Its name in `state_dict()` or `named_buffers()`.
        dimension: The dimension that pruning shortens.
        role: "output" (a layer produces the channels), "input" (a layer reads them) or "channel" (one value each).
    """

    parameter: str
    dimension: int
    role: str


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that can be pruned, any subset, independently of all other groups; or the parts of a masked weight.

    Attributes:
        name: The first module that produces the channels, or the name of the masked weight.
        width: Dense number of channels in each index set, or of parts, see `gnnrl_lightning.surgery.masks`.
        members: All tensor dimensions that pruning the group shortens; none for a masked weight.
        sets: Number of index sets. All keep the same number of channels, each with its own indices. 0: the group is a
            masked weight and has no channels.
        least: The smallest width at which the network runs, unless the group can go entirely.
    """

    name: str
    width: int
    members: tuple[Member, ...]
    sets: int = 1
    least: int = 1


@dataclass(frozen=True)
class FrozenGroup:
    """Channels that must be kept, with the operator that froze them, its location in the code, and the reason."""

    name: str
    width: int
    operator: str
    reason: str
    source: str = ""


@dataclass(frozen=True)
class Fault:
    """Why a test of the pruned network fails.

    Attributes:
        reason: The reason.
        source: Line of the user's code, if it is known.
        training: Whether only training fails.
    """

    reason: str
    source: str = ""
    training: bool = False


@dataclass(frozen=True)
class Channels:
    """The channels of a walk, sorted into groups.

    Attributes:
        groups: Prunable groups, in the order in which the network produces them.
        frozen: The channels that must be kept.
        place: Group, index set and rank of each label `(labels, 3)`, -1 for labels outside all groups.
        owner: Position of each label's channel in `frozen` `(labels + 1,)`, -1 for the others and at the end.
        numbers: Channel of each label `(labels,)`.
    """

    groups: tuple[ChannelGroup, ...]
    frozen: tuple[FrozenGroup, ...]
    place: np.ndarray
    owner: np.ndarray
    numbers: np.ndarray
    _axes: dict[bytes, Axis] = field(default_factory=dict, init=False, repr=False, compare=False)

    def with_masks(self, weights: Sequence[str], parts: int) -> Channels:
        """The same channels and, after them, a group for each masked weight.

        Args:
            weights: Names of the weights.
            parts: Number of parts of each.
        """
        masks = tuple(ChannelGroup(name, parts, (), sets=0) for name in weights)
        return replace(self, groups=(*self.groups, *masks))

    def axis(self, labels: Tensor) -> Axis | None:
        """Return the `Axis` of a label vector, or None if nothing along it can be pruned; equal axes are shared."""
        found = np.where((labels.numpy() >= 0)[:, None], self.place[labels.numpy()], -1)
        if not len(found) or (found[:, 0] < 0).all():
            return None
        key = found.tobytes()
        if key not in self._axes:
            widths, sets = (np.array([getattr(group, name) for group in self.groups]) for name in ("width", "sets"))
            group, row, rank = found.T
            self._axes[key] = Axis(group, row, rank, widths, sets)
        return self._axes[key]
