"""Ragged rows in two plain tensors, for the decisions of graphs of different sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from gnnrl_lightning.rl.state.graph import StateGraph


@dataclass  # not frozen: Lightning moves batches between devices by setting their fields
class Ragged:
    """N concatenated rows of different lengths.

    Attributes:
        values: (D,) concatenated rows.
        counts: (N,) int64 length of each row; the lengths sum to D.
    """

    values: Tensor
    counts: Tensor

    @classmethod
    def of(cls, values: Tensor, state: StateGraph) -> Ragged:
        """Values (D,) of the decisions in a batch of B graphs, as B rows."""
        return cls(values, state.decision_batch.bincount(minlength=state.num_graphs))

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: Tensor) -> Ragged:
        """Select rows.

        Args:
            index: int64 indices or a bool mask of rows; flattened if it has several dimensions.
        """
        index = index.flatten()
        rows = index.nonzero().flatten() if index.dtype == torch.bool else index
        counts = self.counts[rows]
        first = (self.counts.cumsum(0) - self.counts)[rows]
        shift = (first - (counts.cumsum(0) - counts)).repeat_interleave(counts)
        return Ragged(self.values[shift + torch.arange(len(shift), device=shift.device)], counts)

    def cpu(self) -> Ragged:
        """A detached copy on the CPU."""
        return Ragged(self.values.detach().cpu(), self.counts.cpu())


Rows = TypeVar("Rows", Tensor, Ragged)


def concatenated(parts: Sequence[Rows]) -> Rows:
    """Concatenate the rows of several tensors, or of several `Ragged`."""
    if isinstance(parts[0], Ragged):
        values, counts = zip(*((part.values, part.counts) for part in parts if isinstance(part, Ragged)), strict=True)
        return Ragged(torch.cat(values), torch.cat(counts))
    return torch.cat([part for part in parts if isinstance(part, Tensor)])


def plain(rows: Tensor | Ragged) -> Any:
    """Rows in a form that checkpoints can store: tensors unchanged, a `Ragged` as a dictionary of its two tensors."""
    return dict(vars(rows)) if isinstance(rows, Ragged) else rows


def from_plain(rows: Any) -> Any:
    """Inverse of `plain`."""
    return Ragged(**rows) if isinstance(rows, dict) else rows
