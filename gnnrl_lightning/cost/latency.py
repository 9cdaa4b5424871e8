"""Latency of a network at any widths: a sum over its operators, interpolated in a table of measured times.

    latency(widths) = sum_l (scale * table_l(C_in, C_out) + call) + sum_e (scale * ratio * table_e(C_out) + call)
                      + load * max(parameters - cached, 0)

The table has the milliseconds of each operator on a grid of channels, and is bilinear between grid points: of layers
l, which mix channels, and of operators e that leave them apart (batch norms, activations, additions, ...). `call`,
`scale`, `ratio`, `rounding`, `load` and `cached` are fitted to whole networks. An operator that is absent, since no
channel is left, takes nothing; `call` may be negative, because a call alone takes longer than one among others, and no
operator takes less than nothing. Operators e may take several times as long in a network as alone, where their inputs
stay in the processor's caches, which is `ratio`. Weights stay there, too, while an operator is measured alone; in a
large network all but `cached` of them are read from memory, which is `load`. Processors compute layers with vectors of
8 or 16 channels, so that 33 channels may take as long as 40, and `rounding` says how much of the way to the next
multiple of 8 or 16 a width counts there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from gnnrl_lightning.cost.correction import Correction, Networks, fitted_alike, fitted_correction
from gnnrl_lightning.cost.grid import Grid, Lookup
from gnnrl_lightning.errors import UserError


class Sized(Protocol):
    """The operators of a traced network and the channels of its feature maps."""

    @property
    def widths(self) -> Tensor: ...  # noqa: D102
    @property
    def operators(self) -> Sequence[Any]: ...  # noqa: D102
    @property
    def cost(self) -> Any: ...  # noqa: D102
    def channels(self, widths: Tensor) -> Tensor: ...  # noqa: D102


@dataclass(frozen=True)
class Use:
    """An operator of a network, and its grid in the table.

    Attributes:
        operator: Its index among the graph's operators.
        key: Name of its grid.
        source: Index of the feature map whose channels it reads; None: the time depends on the outputs alone.
        target: Index of the feature map that it writes.
    """

    operator: int
    key: str
    source: int | None
    target: int


class LatencyModel:
    """Latency of a traced network at any widths, milliseconds of a batch; it never rises when a group is narrowed.

    Args:
        graph: The traced network.
        uses: Its operators that take time.
        grids: Key -> measured times.
        correction: From the sum over the operators to whole networks; None: the sum itself.

    Raises:
        UserError: A grid is missing.
    """

    def __init__(
        self, graph: Sized, uses: Sequence[Use], grids: Mapping[str, Grid], correction: Correction | None = None
    ) -> None:
        missing = sorted({use.key for use in uses} - {*grids})
        if missing:
            raise UserError(f"the latency table has no row for {missing[0]!r} ({len(missing)} missing): add it")
        self.graph, self.uses, self.grids = graph, tuple(uses), grids
        self.correction = correction or Correction()
        ends = [(use.target if use.source is None else use.source, use.target) for use in uses]
        self._ends = torch.tensor(ends, dtype=torch.int64).reshape(-1, 2)
        self._operators = torch.tensor([use.operator for use in uses], dtype=torch.int64)
        self._most = int(graph.channels(graph.widths[None]).max()) if uses else 0
        self._layers = [number for number, use in enumerate(uses) if use.source is not None]
        self._others = [number for number, use in enumerate(uses) if use.source is None]
        self._merge()

    def _lookup(self, numbers: Sequence[int], rounding: float) -> Lookup:
        grids = [self.grids[self.uses[number].key] for number in numbers]
        return Lookup(grids, self._most, rounding, self.correction.lanes)

    def _merge(self) -> None:
        """Prepare the sums over all operators.

        Operators other than layers are added up in a table over all numbers of channels of the feature map; equal
        layers are evaluated once. Feature maps with the same channels at random widths are the same.
        """
        generator = torch.Generator().manual_seed(0)
        random = (torch.rand(8, len(self.graph.widths), generator=generator) * self.graph.widths).long() + 1
        channels = [tuple(column) for column in self.graph.channels(random).T.tolist()]
        lines: dict[tuple[int, ...], list[int]] = {}
        planes: dict[tuple[Any, ...], list[int]] = {}
        for number in self._others:
            lines.setdefault(channels[self.uses[number].target], []).append(number)
        for number in self._layers:
            source, target = self._ends[number].tolist()
            planes.setdefault((self.uses[number].key, channels[source], channels[target]), []).append(number)
        every = torch.arange(self._most + 1)[:, None]
        sums = [self._lookup(numbers, 0.0)(every, every).sum(-1) for numbers in lines.values()]
        self._line_calls = torch.tensor([len(numbers) for numbers in lines.values()], dtype=torch.float64)
        self._lines = torch.stack(sums) if sums else torch.zeros(0, 1, dtype=torch.float64)
        self._line_ends = self._ends[[numbers[0] for numbers in lines.values()], 1]
        first = [numbers[0] for numbers in planes.values()]
        self._plane_ends, self._planes = self._ends[first], self._lookup(first, self.correction.rounding)
        self._times = torch.tensor([len(numbers) for numbers in planes.values()], dtype=torch.float64)

    def corrected(self, correction: Correction) -> LatencyModel:
        """The same model with another correction."""
        return LatencyModel(self.graph, self.uses, self.grids, correction)

    def _parts(self, widths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Times of layers `(B, P)` and of the other operators of feature maps `(B, L)`, and which are present."""
        channels = self.graph.channels(widths)
        lines = self._lines[torch.arange(len(self._lines)), channels[:, self._line_ends]]
        ends = [channels[:, end] for end in self._plane_ends.T]
        return self._planes(*ends), lines, (ends[0] > 0) & (ends[1] > 0), channels[:, self._line_ends] > 0

    def sums(self, widths: Tensor) -> Tensor:
        """Sums over layers and over other operators, and the number of operators, `(B, 3)` float64 at `widths (B, G)`.

        The sums are in milliseconds; absent operators do not count.
        """
        planes, lines, layers, others = self._parts(widths)
        calls = layers.double() @ self._times + others.double() @ self._line_calls
        return torch.stack([planes @ self._times, lines.sum(-1), calls], -1)

    def __call__(self, widths: Tensor) -> Tensor:
        """Latency `(...)` float64 at `widths (..., G)`, milliseconds."""
        widths, correction = torch.as_tensor(widths), self.correction
        shape = widths.shape[:-1]
        planes, lines, layers, others = self._parts(widths.reshape(shape.numel(), widths.shape[-1]))
        planes = (correction.scale * planes + correction.call).clamp(min=0) * layers
        lines = (correction.scale * correction.ratio * lines + correction.call * self._line_calls).clamp(min=0) * others
        return (planes @ self._times + lines.sum(-1)).reshape(shape) + correction.loading(self._millions(widths))

    def _millions(self, widths: Tensor) -> Tensor:
        """Millions of parameters `(...)` float64 at `widths (..., G)`."""
        return self.graph.cost.params(widths).double() / 1e6

    def operators(self, widths: Tensor) -> Tensor:
        """Milliseconds of each operator of the graph `(B, n_operators)` at `widths (B, G)`, without `call`."""
        channels = self.graph.channels(widths)
        found = torch.zeros(len(widths), len(self.graph.operators), dtype=torch.float64)
        for numbers, lookup, factor in self._each:
            times = lookup(*(channels[:, end] for end in self._ends[numbers].T))
            found.index_add_(1, self._operators[numbers], factor * times)
        parameters = self.graph.cost.operator_params(widths).double()
        share = parameters / parameters.sum(1, keepdim=True).clamp(min=1)
        return found + self.correction.loading(self._millions(widths))[:, None] * share

    @cached_property
    def _each(self) -> tuple[tuple[list[int], Lookup, float], ...]:
        """Layers and other operators, one by one: their numbers, their tables, and the factor of their times."""
        scale, rounding, ratio = self.correction.scale, self.correction.rounding, self.correction.ratio
        layers = self._layers, self._lookup(self._layers, rounding), scale
        return layers, (self._others, self._lookup(self._others, 0.0), scale * ratio)

    def fitted(
        self,
        widths: Tensor,
        measured: Sequence[float],
        weights: Sequence[float] | None = None,
        like: Correction | None = None,
    ) -> LatencyModel:
        """Fit the correction to whole networks by least squares of the relative error.

        Of several forms, the one that predicts each network best from the others is taken. With a single network, or
        with several of about the same sum, only the scale is fitted.

        Args:
            widths: Widths of n networks `(n, G)`.
            measured: Their measured times, milliseconds.
            weights: Weight of each; None: all the same.
            like: A correction of which only call and scale are fitted again; the load changes with the scale; None: all
                are fitted, see `gnnrl_lightning.cost.correction`.
        """
        y = torch.tensor(measured, dtype=torch.float64)
        weight = torch.ones_like(y) if weights is None else torch.tensor(weights, dtype=torch.float64)
        tables = [self.grids[self.uses[number].key].milliseconds for number in self._layers]
        networks = Networks(
            lambda rounding, lanes: self.corrected(Correction(rounding=rounding, lanes=lanes)).sums(widths),
            self._millions(widths),
            min((min(map(min, table)) for table in tables), default=0.0),
            y,
            weight,
        )
        return self.corrected(fitted_correction(networks) if like is None else fitted_alike(networks, like))

    def errors(self, widths: Tensor, measured: Sequence[float]) -> list[float]:
        """Relative errors for whole networks, each predicted by a fit to all others.

        Args:
            widths: Widths of n networks `(n, G)`.
            measured: Their measured times, milliseconds.
        """
        found = []
        for number, milliseconds in enumerate(measured):
            others = [each for each in range(len(measured)) if each != number]
            model = self.fitted(widths[others], [measured[each] for each in others])
            found.append(float(model(widths[number])) / milliseconds - 1)
        return found
