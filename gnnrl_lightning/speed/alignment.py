"""The number of channels whose multiples are fastest as widths, measured on this machine.

Processors compute with vectors and tiles: a layer with 17 channels often takes as long as one with 24. So widths that
are multiples of 8, say, take less time for the same MACs, and in turn fewer allocations can be chosen from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.cost.metrics import LATENCY
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.speed.timer import Timer

MULTIPLES = (1, 2, 4, 8, 16)
"""Multiples to try."""

CHOICES = 4
"""Number of widths that at least half of the groups must have: coarser multiples cost accuracy, or remove groups."""

MACS = "macs"
"""The metric that stands for the latency."""

CLOSE = 1.05
"""Factor within which two times count as equal: then the smaller multiple leaves more to choose from."""


@dataclass(frozen=True)
class Alignment:
    """The multiple that was chosen, with the measurements.

    Attributes:
        multiple: Number of channels.
        milliseconds: Multiple -> time of a batch; those that leave less than `CHOICES`, or with which the budget cannot
            be met, are left out.
        dense: Time of the dense network, likewise.
        examples: Examples in the batch.
    """

    multiple: int
    milliseconds: Mapping[int, float]
    dense: float
    examples: int

    def __str__(self) -> str:
        """One line for the user."""
        times = ", ".join(f"{multiple}: {value:.3g}" for multiple, value in self.milliseconds.items())
        return (
            f"widths are multiples of {self.multiple} (ms for {self.examples} examples at the budget, one keep ratio "
            f"for all groups, in multiples of {times}; dense: {self.dense:.3g})"
        )


def multiples_for(graph: ComputationGraph, multiples: Sequence[int] = MULTIPLES) -> list[int]:
    """Return the multiples that leave enough widths to choose from, ascending.

    Args:
        graph: The traced network.
        multiples: Multiples to try, ascending.
    """
    return [multiple for multiple in multiples if multiple == 1 or int((graph.widths // multiple).median()) >= CHOICES]


def align(
    graph: ComputationGraph,
    network: nn.Module,
    budget: Budget,
    timer: Timer,
    examples: int,
    multiples: Sequence[int] = MULTIPLES,
) -> Alignment:
    """Measure networks that meet a budget with one keep ratio for all groups, and choose the smallest fast multiple.

    A limit on the latency counts as the same share of the MACs: the latency is not known before the multiple is, as it
    is measured for the widths that may be chosen.

    Args:
        graph: The traced network.
        network: The dense network, trained or not.
        budget: The budget, whatever its `channel_multiple`.
        timer: Measures networks: by the same back end, threads and batch as latency elsewhere.
        examples: Examples in its batch.
        multiples: Multiples to try, ascending.

    Raises:
        UserError: The budget cannot be met with any of the multiples; the message is that of the smallest one.
    """
    made: dict[int, nn.Module] = {}
    first: UserError | None = None
    budget = _in_macs(budget, graph, lambda: timer.networks([network])[0])
    for multiple in multiples_for(graph, multiples):
        try:
            limits = budget.aligned(multiple).on(graph)
        except UserError as error:
            first = first or error
            continue
        made[multiple] = graph.plan(network, limits.project(graph.widths)).apply(network)
    if not made:
        assert first is not None  # at least one was tried
        raise first
    dense, *times = timer.networks([network, *made.values()])
    found = dict(zip(made, times, strict=True))
    chosen = next(multiple for multiple, value in found.items() if value <= CLOSE * min(times))
    return Alignment(chosen, found, dense, examples)


def _in_macs(budget: Budget, graph: ComputationGraph, milliseconds: Callable[[], float]) -> Budget:
    """Replace a limit on the latency by one on the MACs, the same share of the dense network's, if it can be met.

    Args:
        budget: The budget.
        graph: The traced network.
        milliseconds: Measures the dense network.
    """
    limit = budget.parsed.get(LATENCY)
    if limit is None:
        return budget
    macs = graph.cost_of(MACS)
    dense = int(macs(graph.widths))
    share = limit.value if limit.relative else limit.value / milliseconds()
    smallest = int(macs(Budget({MACS: dense - 1}, 1, budget.min_width).on(graph).allowed.lowest))
    most = min(max(int(share * dense), smallest), dense - 1)
    given = budget.parsed.get(MACS)
    if given is not None:
        most = min(most, int(given.of(dense)))
    return budget.with_limits(**{LATENCY: None, MACS: most})
