"""Rows of different lengths in two plain tensors: the decisions of graphs that have different numbers of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from gnnrl_lightning.rl.state.graph import StateGraph


@dataclass  # not frozen: Lightning moves batches between devices by setting their fields
class Ragged:
    """N rows of different lengths, end to end.

    Attributes:
        values: (D,) the rows, one after the other.
        counts: (N,) int64, length of each row; they sum to D.
    """

    values: Tensor
    counts: Tensor

    @classmethod
    def of(cls, values: Tensor, state: StateGraph) -> Ragged:
        """Numbers of the decisions (D,) of a batch of B graphs, as B rows."""
        return cls(values, state.decision_batch.bincount(minlength=state.num_graphs))

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: Tensor) -> Ragged:
        """Some of the rows.

        Args:
            index: int64 numbers of rows, or bool for each row; of several dimensions, it is flattened.
        """
        index = index.flatten()
        rows = index.nonzero().flatten() if index.dtype == torch.bool else index
        counts = self.counts[rows]
        first = (self.counts.cumsum(0) - self.counts)[rows]
        shift = (first - (counts.cumsum(0) - counts)).repeat_interleave(counts)
        return Ragged(self.values[shift + torch.arange(len(shift), device=shift.device)], counts)

    def cpu(self) -> Ragged:
        """The same without a gradient, on the CPU."""
        return Ragged(self.values.detach().cpu(), self.counts.cpu())


Rows = TypeVar("Rows", Tensor, Ragged)


def concatenated(parts: Sequence[Rows]) -> Rows:
    """Rows of several tensors, or of several `Ragged`, in order."""
    if isinstance(parts[0], Ragged):
        values, counts = zip(*((part.values, part.counts) for part in parts if isinstance(part, Ragged)), strict=True)
        return Ragged(torch.cat(values), torch.cat(counts))
    return torch.cat([part for part in parts if isinstance(part, Tensor)])


def plain(rows: Tensor | Ragged) -> Any:
    """What a checkpoint may hold: a tensor as it is, the two tensors of a `Ragged` by name."""
    return dict(vars(rows)) if isinstance(rows, Ragged) else rows


def from_plain(rows: Any) -> Any:
    """What `plain` was given."""
    return Ragged(**rows) if isinstance(rows, dict) else rows
