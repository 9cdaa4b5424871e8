"""Measured times of an operator on a grid of channels, and their bilinear interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LANES = 8
"""Channels that most processors compute together."""


@dataclass(frozen=True)
class Grid:
    """Milliseconds of an operator over its input and output channels.

    Attributes:
        inputs: Input channels of the rows, ascending; only one if the time depends on the outputs alone.
        outputs: Output channels of the columns, ascending.
        milliseconds: For each row, the times of the columns.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    milliseconds: tuple[tuple[float, ...], ...]

    def covers(self, inputs: int, outputs: int) -> bool:
        """Whether these channels lie within the grid."""
        return inputs <= self.inputs[-1] and outputs <= self.outputs[-1]

    @property
    def rising(self) -> Tensor:
        """The times without falls, float64, so that a narrower operator never takes longer: see `rising`."""
        return rising(torch.tensor(self.milliseconds, dtype=torch.float64))


def rising(table: Tensor) -> Tensor:
    """Return a table `(n, m)` without falls along rows and columns.

    It is the mean of the smallest such table above the given one and the largest one below it.
    """
    above = table.cummax(0).values.cummax(1).values
    below = table.flip(0, 1).cummin(0).values.cummin(1).values.flip(0, 1)
    return (above + below) / 2


class Lookup:
    """The grids of many operators, evaluated together.

    Args:
        grids: Grid of each of n operators.
        most: Largest number of channels.
        rounding: Share of the way to the next multiple of `lanes` that a number of channels counts.
        lanes: Channels that the processor computes together.
    """

    def __init__(self, grids: Sequence[Grid], most: int, rounding: float, lanes: int = LANES) -> None:
        starts, tables, start = dict[int, int](), list[Tensor](), 0
        for grid in {id(grid): grid for grid in grids}.values():
            starts[id(grid)] = start
            tables.append(grid.rising.flatten())
            start += len(tables[-1])
        self._table = torch.cat([torch.zeros(0, dtype=torch.float64), *tables])
        self._start = torch.tensor([starts[id(grid)] for grid in grids], dtype=torch.int64)
        columns = torch.tensor([len(grid.outputs) for grid in grids], dtype=torch.int64)
        rows = torch.tensor([len(grid.inputs) for grid in grids], dtype=torch.int64)
        self._columns, self._right, self._down = columns, (columns > 1).long(), torch.where(rows > 1, columns, 0)
        axes: dict[tuple[int, ...], int] = {}
        self._inputs = torch.tensor([axes.setdefault(grid.inputs, len(axes)) for grid in grids], dtype=torch.int64)
        self._outputs = torch.tensor([axes.setdefault(grid.outputs, len(axes)) for grid in grids], dtype=torch.int64)
        every = torch.arange(most + 1)
        whole = (every + lanes - 1) // lanes * lanes
        places = [_places(points, torch.lerp(every.double(), whole.double(), rounding)) for points in axes]
        self._low = torch.stack([low for low, _ in places]) if places else torch.zeros(0, 1, dtype=torch.int64)
        self._share = torch.stack([share for _, share in places]) if places else torch.zeros(0, 1, dtype=torch.float64)

    def __call__(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Milliseconds `(B, n)` float64 at channels `(B, n)` each; none without channels: the operator is removed."""
        row, column = self._low[self._inputs, inputs], self._low[self._outputs, outputs]
        down, right = self._share[self._inputs, inputs], self._share[self._outputs, outputs]
        corner = self._start + row * self._columns + column
        upper = torch.lerp(self._table[corner], self._table[corner + self._right], right)
        below = corner + self._down
        lower = torch.lerp(self._table[below], self._table[below + self._right], right)
        return torch.lerp(upper, lower, down).clamp(min=0) * ((inputs > 0) & (outputs > 0))


def _places(points: Sequence[int], channels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the index of the grid point below each number of channels, and its share of the way to the next one.

    Beyond the grid, its ends count.
    """
    if len(points) == 1:
        return torch.zeros(channels.shape, dtype=torch.int64), torch.zeros_like(channels)
    knots = torch.tensor(points, dtype=torch.float64)
    channels = channels.clamp(points[0], points[-1])
    low = (torch.searchsorted(knots, channels, right=True) - 1).clamp(0, len(points) - 2)
    return low, (channels - knots[low]) / (knots[low + 1] - knots[low])
