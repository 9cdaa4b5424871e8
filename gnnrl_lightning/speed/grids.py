"""The grids of channels on which the operators of a network are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from gnnrl_lightning.cost.grid import Grid
from gnnrl_lightning.cost.latency import Use
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.speed.backend import Backend, Cell, Shaped
from gnnrl_lightning.speed.backends import EAGER


@dataclass(frozen=True)
class Wanted:
    """A grid that a network needs.

    Attributes:
        form: The operator, apart from its channels.
        inputs: Input channels of the grid, ascending.
        outputs: Output channels of the grid, ascending.
    """

    form: Shaped
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def wanted_grids(
    graph: ComputationGraph, network: nn.Module, backend: Backend = EAGER
) -> tuple[list[Use], dict[str, Wanted]]:
    """Return the operators of a network that take time, and the grids from which their times are interpolated.

    Args:
        graph: The traced network.
        network: The network.
        backend: What runs it.
    """
    found = backend.uses(graph, network)
    dense, smallest = (
        graph.channels(widths[None])[0].tolist() for widths in (graph.widths, torch.ones_like(graph.widths))
    )
    ends: dict[str, tuple[set[int], set[int]]] = {}
    pruned: dict[str, list[bool]] = {}
    for use, _ in found:
        maps = (use.source, use.target)
        for place, number in enumerate(maps):
            known = ends.setdefault(use.key, (set(), set()))
            known[place].add(0 if number is None else dense[number])
            free = pruned.setdefault(use.key, [False, False])
            free[place] |= number is not None and smallest[number] < dense[number]
    wanted = {}
    for use, form in found:
        inputs, outputs = (_points(*each, backend.points) for each in zip(ends[use.key], pruned[use.key], strict=True))
        wanted[use.key] = Wanted(form, inputs, outputs)
    return [use for use, _ in found], wanted


def _points(dense: set[int], pruned: bool, points: tuple[int, ...]) -> tuple[int, ...]:
    """Return the grid points of an axis: all dense numbers of channels and, if they can be pruned, smaller ones."""
    smaller = {point for point in points if point < max(dense)} if pruned else set[int]()
    return tuple(sorted(dense | smaller))


def measured_grids(
    wanted: Mapping[str, Wanted], measure: Callable[[Sequence[Cell]], Sequence[float]]
) -> dict[str, Grid]:
    """Measure grids.

    Args:
        wanted: Key -> grid.
        measure: Returns the milliseconds of operators.
    """
    cells = [(item.form, one, other) for item in wanted.values() for one in item.inputs for other in item.outputs]
    times = iter(measure(cells))
    return {
        key: Grid(item.inputs, item.outputs, tuple(tuple(next(times) for _ in item.outputs) for _ in item.inputs))
        for key, item in wanted.items()
    }


def covering(grids: Mapping[str, Grid], wanted: Mapping[str, Wanted]) -> dict[str, Grid]:
    """Return the grids that have all channels of those wanted."""
    return {
        key: grids[key]
        for key, item in wanted.items()
        if key in grids and {*item.inputs} <= {*grids[key].inputs} and {*item.outputs} <= {*grids[key].outputs}
    }
