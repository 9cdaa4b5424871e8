"""Layout of channels along tensor dimensions, and the positions that remain after pruning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Selection:
    """The kept channels: for each group, the ranks that each of its index sets keeps.

    Args:
        kept: Ranks `(sets, width)` int64 for each group, ascending along the last dimension.
        dense: Dense width of each group.
    """

    def __init__(self, kept: Sequence[Tensor], dense: Sequence[int]) -> None:
        self.kept = tuple(kept)
        start, parts = 0, []
        for ranks, width in zip(kept, dense, strict=True):
            row = torch.full((len(ranks), width), -1)
            row[:, : ranks.shape[1]] = ranks + start + torch.arange(len(ranks))[:, None] * width
            parts.append(row.flatten())
            start += len(ranks) * width
        self.source = torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)
        """Number in the pruned network's order (group, set, rank) -> number in the dense network, or -1."""


class Axis:
    """Layout of the channels of all groups along one tensor dimension.

    Args:
        group: Group of each position `(n,)`, -1 for fixed positions.
        row: Index set of each position within its group `(n,)`.
        rank: Rank of each position's channel within its index set `(n,)`.
        widths: Dense widths of all groups `(G,)`.
        sets: Number of index sets of all groups `(G,)`.
    """

    def __init__(
        self, group: np.ndarray, row: np.ndarray, rank: np.ndarray, widths: np.ndarray, sets: np.ndarray
    ) -> None:
        starts = np.concatenate([[0], np.cumsum(widths * sets)])
        free = group >= 0
        self.length = len(group)
        self.fixed = int((~free).sum())
        self.counts = {int(g): int((group == g).sum()) // int(widths[g]) for g in np.unique(group[free])}
        number = np.where(free, starts[group] + row * widths[group] + rank, -1)
        self.channels = torch.from_numpy(number)
        """Channel of each position `(n,)`, numbered by group, then index set, then rank; -1 for fixed positions."""
        self._simple = self._repeats(row, rank, widths)
        if self._simple is None:
            self._index(number)

    def size(self, widths: Tensor) -> Tensor:
        """Return the length `(...)` of the dimension at `widths (..., G)`."""
        total = torch.full(widths.shape[:-1], self.fixed, dtype=torch.int64)
        for group, count in self.counts.items():
            total = total + count * widths[..., group]
        return total

    def positions(self, selection: Selection) -> Tensor:
        """Return the kept positions `(size,)`, in the order of the pruned network.

        The order follows the dense pattern at the smaller width: a shuffle of two halves remains a shuffle of two
        halves, whichever channels each half keeps.
        """
        if self._simple is not None:
            group, repeats = self._simple
            ranks = selection.kept[group][0]
            return ranks if repeats == 1 else (ranks[:, None] * repeats + torch.arange(repeats)).flatten()
        source = torch.where(self.channels < 0, self.channels, selection.source[self.channels])
        stays = (self.channels < 0) | (source >= 0)
        slot = torch.searchsorted(self._sorted, source.clamp(min=0)).clamp(max=len(self._sorted) - 1)
        found = torch.where(self.channels < 0, torch.arange(self.length), self._table[slot, self._occurrence])
        return found[stays]

    def _repeats(self, row: np.ndarray, rank: np.ndarray, widths: np.ndarray) -> tuple[int, int] | None:
        """Return `(group, r)` if the axis is one index set in order, each channel r times in a row; else None."""
        if self.fixed or len(self.counts) != 1 or row.max() != 0:
            return None
        group = next(iter(self.counts))
        repeats = self.length // int(widths[group])
        in_order = np.repeat(np.arange(self.length // repeats), repeats)
        return (group, repeats) if np.array_equal(rank, in_order) else None

    def _index(self, number: np.ndarray) -> None:
        """Build the lookup table of the general case: the position of the o-th occurrence of each channel."""
        channels, inverse, counts = np.unique(number, return_inverse=True, return_counts=True)
        order = np.argsort(inverse, kind="stable")
        occurrence = np.empty(self.length, dtype=np.int64)
        occurrence[order] = np.arange(self.length) - np.repeat(np.cumsum(counts) - counts, counts)
        occurrence[number < 0] = 0
        table = np.zeros((len(channels), int(occurrence.max()) + 1), dtype=np.int64)
        table[inverse, occurrence] = np.arange(self.length)
        self._occurrence = torch.from_numpy(occurrence)
        self._sorted, self._table = torch.from_numpy(channels), torch.from_numpy(table)
