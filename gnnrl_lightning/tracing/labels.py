"""Channel labels: the channel to which each element of each tensor belongs.

The walk over the exported graph assigns each tensor one or more *label tensors*. A label tensor broadcasts to the
tensor's shape and has size 1 along every dimension over which the label does not change, so it is small: the labels of
a feature map `(B, C, H, W)` have the shape `(1, C, 1, 1)`. The walk only collects constraints ("these two labels are
one channel", "this channel must be kept"); `Labels.solve` derives the channels from them at the end.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

FIXED = -1
"""Label of a position that is not part of a channel and cannot be removed."""

ZERO = -2
"""Label of a position that is always zero (zero padding). Adding it to another tensor leaves that tensor's labels."""


@dataclass(frozen=True)
class Value:
    """A tensor of the walk: its shape and its label tensors (if there are none, all positions are fixed).

    Parameters have one label tensor for each dimension longer than 1; feature maps usually have a single one.
    """

    shape: tuple[int, ...]
    labels: tuple[Tensor, ...] = ()

    def along(self, dim: int) -> Tensor | None:
        """Return the labels `(shape[dim],)` that change along `dim` only, or None if there are none."""
        dim %= len(self.shape)
        for labels in self.labels:
            if support(labels) == (dim,):
                return labels.flatten()
        return None

    def others(self, dim: int) -> tuple[Tensor, ...]:
        """Return the label tensors that do not change along `dim`."""
        dim %= len(self.shape)
        return tuple(labels for labels in self.labels if labels.shape[dim] == 1)


def support(labels: Tensor) -> tuple[int, ...]:
    """Return the dimensions along which a label tensor changes."""
    return tuple(dim for dim, size in enumerate(labels.shape) if size > 1)


def is_zero(labels: Tensor) -> bool:
    """Whether labels are those of a tensor that is zero everywhere."""
    return not support(labels) and int(labels.flatten()[0]) == ZERO


def leading(labels: Tensor, dims: Collection[int]) -> Tensor:
    """Return the first labels along dimensions, which get size 1; of padding and a channel, those of the channel."""
    found = labels
    for dim in dims:
        found = torch.where(found.narrow(dim, 0, 1) < 0, found.amax(dim, keepdim=True), found.narrow(dim, 0, 1))
    return found


def compact(labels: Tensor) -> Tensor:
    """Reduce labels to size 1 along every dimension over which they do not change."""
    for dim in support(labels):
        first = labels.narrow(dim, 0, 1)
        if bool((labels == first).all()):
            labels = first
    return labels.contiguous()


def shrinking(labels: Tensor, channels: Tensor) -> tuple[int, Tensor, int] | None:
    """Return the dimension that shrinks with the channels of labels, labels that count it, and how many count as one.

    Channels may not change along some of the dimensions: a convolution reads each channel together with all positions
    of the others, a head of attention goes as a whole. Of the dimensions along which they change, the last one shrinks,
    and its rows keep equal counts.

    Args:
        labels: A label tensor.
        channels: The channel of each label, in the same shape.
    """
    dims = support(compact(torch.where(labels >= 0, channels, labels)))
    if not dims:
        return None
    for dim in set(support(labels)) - set(dims):
        labels = labels.narrow(dim, 0, 1)
    return dims[-1], labels.flatten(), labels.numel() // labels.shape[dims[-1]]


def vector(labels: Tensor, ndim: int, dim: int) -> Tensor:
    """Reshape labels `(n,)` to lie along dimension `dim` of a tensor with `ndim` dimensions."""
    shape = [1] * ndim
    shape[dim % ndim] = -1
    return labels.reshape(shape)


@dataclass(frozen=True)
class Freeze:
    """Frozen labels with the operator that froze them, its location in the code, and the reason."""

    labels: Tensor
    operator: str
    source: str
    reason: str


@dataclass
class Parts:
    """Parts of channels that an operator takes, with its name and its location in the code.

    Attributes:
        parts: Labels `(n,)` of each part.
        operator: Name of the operator.
        source: Its location in the code.
        together: Whether the parts keep the ratio of their sizes; otherwise they are separate index sets.
        tried: Whether one of the two has been tried, and the network's code did not follow.
    """

    parts: tuple[Tensor, ...]
    operator: str
    source: str
    together: bool = False
    tried: bool = False

    @property
    def unit(self) -> int:
        """The largest number of channels of which all parts are multiples."""
        return math.gcd(*(len(part) for part in self.parts))

    def labels(self) -> Tensor:
        """Return the labels of all parts."""
        return torch.cat(self.parts)


@dataclass(frozen=True)
class Use:
    """Labels that an operator uses in one way, see `Labels`, with its name and its location in the code.

    Attributes:
        labels: The labels.
        operator: Name of the operator.
        source: Its location in the code.
        parts: The parts that it takes if they keep the ratio of their sizes.
        ordered: Whether the order of labels in each row matters: that of a block of a convolution does not.
    """

    labels: Tensor
    operator: str
    source: str
    parts: Parts | None = None
    ordered: bool = True


@dataclass
class Labels:
    """All labels and the constraints on them.

    Attributes:
        count: Number of labels.
        joined: Pairs of labels of one channel.
        frozen: Labels that must be kept.
        rows: Label vectors `(rows, n)` that must keep equal counts.
        splits: Labels of a channel dimension that a view has split into several, or of parts of its rows.
        cuts: Parts of channel dimensions.
        tagged: Labels that occur together.
    """

    count: int = 0
    joined: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    frozen: list[Freeze] = field(default_factory=list)
    rows: list[Use] = field(default_factory=list)
    splits: list[Use] = field(default_factory=list)
    cuts: list[Parts] = field(default_factory=list)
    tagged: list[Tensor] = field(default_factory=list)

    def fresh(self, n: int) -> Tensor:
        """Return new labels `(n,)`."""
        self.count += n
        return torch.arange(self.count - n, self.count)

    def join(self, a: Tensor, b: Tensor, operator: str, source: str) -> Tensor:
        """Record that `a` and `b` (broadcastable) label the same channels; return the labels of the result.

        If one is ZERO, the result has the other label; if one is FIXED, the other is frozen.
        """
        a, b = torch.broadcast_tensors(a, b)
        both = (a >= 0) & (b >= 0)
        self.joined.append((a[both], b[both]))
        for one, other in ((a, b), (b, a)):
            lonely = (one >= 0) & (other == FIXED)
            self.freeze(one[lonely], operator, source, "is combined with values that cannot be pruned")
        return torch.maximum(a, b)

    def freeze(self, labels: Tensor, operator: str, source: str, reason: str) -> None:
        """Record that these labels must be kept."""
        labels = labels[labels >= 0]
        if labels.numel():
            self.frozen.append(Freeze(labels, operator, source, reason))

    def tag(self, labels: Tensor) -> None:
        """Tag labels that occur together: labels of one group share all their tags."""
        labels = labels[labels >= 0]
        if labels.numel():
            self.tagged.append(labels)

    def cut(self, parts: Sequence[Tensor], operator: str, source: str, together: bool = False) -> None:
        """Record that an operator takes parts of the channels of sizes that its code gives, see `Parts`."""
        parts = [part.flatten() for part in parts if part.numel()]
        self.cuts.append(Parts(tuple(parts), operator, source, together))

    def part(self, parts: Sequence[Tensor], operator: str, source: str) -> None:
        """Record that an operator takes parts of the channels of given sizes; equal ones are likely to remain equal."""
        self.cut(parts, operator, source, together=len({len(part) for part in parts if part.numel()}) == 1)

    def part_rows(self, parts: Sequence[Tensor], operator: str, source: str) -> None:
        """Record that an operator takes parts of each row of channels along the last dimension: equal ones are tied."""
        equal = len({part.shape for part in parts}) == 1
        self.splits += [Use(part, operator, source) for part in ([torch.stack(list(parts))] if equal else parts)]

    def divide(self, parts: Sequence[Tensor], operator: str, source: str) -> None:
        """Record that an operator takes a number of parts of the channels: equal ones are tied."""
        if len({len(part) for part in parts}) == 1:
            self.tie(torch.stack(list(parts)), operator, source)
        else:
            self.cut(parts, operator, source)

    def tie(self, labels: Tensor, operator: str, source: str, ordered: bool = True) -> None:
        """Record that the rows of `labels` `(rows, n)` must keep equal counts, each row with its own indices."""
        self.rows.append(Use(labels, operator, source, ordered=ordered))
        for row in labels:
            self.tag(row)

    def mark(self) -> dict[str, int]:
        """Return how many constraints there are of each kind, for `forget`."""
        return {kind: len(constraints) for kind, constraints in vars(self).items() if kind != "count"}

    def forget(self, before: dict[str, int]) -> None:
        """Drop the constraints that have been recorded since `mark`."""
        for kind, count in before.items():
            del getattr(self, kind)[count:]

    def settle(self, channel: np.ndarray) -> tuple[list[Use], list[Tensor]]:
        """Return all rows that must keep equal counts and all tags, with those of splits and parts.

        If the last dimension of a split shrinks, see `shrinking`, its rows keep equal counts.

        Args:
            channel: The channel of each label, see `solve`.
        """
        rows, tagged = list(self.rows), list(self.tagged)
        for cut in self.cuts:
            if cut.together:
                table = torch.cat([part.reshape(-1, cut.unit) for part in cut.parts])
                rows.append(Use(table, cut.operator, cut.source, cut))
                tagged += [row[row >= 0] for row in table]
            else:
                tagged += [part[part >= 0] for part in cut.parts]
        for split in self.splits:
            shrinks = shrinking(split.labels, torch.from_numpy(channel)[split.labels])
            if shrinks is None:
                continue  # a single channel
            _, along, unit = shrinks
            if unit == 1:
                tagged.append(along[along >= 0])
                continue
            found = along.reshape(unit, -1)
            rows.append(Use(found, split.operator, split.source))
            tagged += [row[row >= 0] for row in found]
        return rows, [labels for labels in tagged if labels.numel()]

    def solve(self) -> np.ndarray:
        """Return the channel `(count,)` of each label, numbered from 0: connected components of joined labels."""
        if not self.joined:
            return np.arange(self.count)
        a = torch.cat([pair[0] for pair in self.joined]).numpy()
        b = torch.cat([pair[1] for pair in self.joined]).numpy()
        matrix = coo_array((np.ones(len(a), dtype=bool), (a, b)), shape=(self.count, self.count))
        return connected_components(matrix, directed=False)[1]
