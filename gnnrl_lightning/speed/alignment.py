"""The number of channels of which widths should be multiples, measured on this machine.

Processors compute with vectors and tiles: a layer with 17 channels often takes as long as one with 24. So widths that
are multiples of 8, say, take less time for the same MACs, and in turn fewer allocations can be chosen from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.speed.latency import paired_latency_ms
from gnnrl_lightning.trees import Tree, count

MULTIPLES = (1, 2, 4, 8, 16)
"""Multiples to try."""

CLOSE = 1.05
"""Factor within which two times count as equal: then the smaller multiple leaves more to choose from."""

ROUNDS, SECONDS = 20, 10.0
"""Limits of the measurement."""


@dataclass(frozen=True)
class Alignment:
    """The multiple that was chosen, with the measurements.

    Attributes:
        multiple: Number of channels.
        milliseconds: Multiple -> time of a batch; those with which the budget cannot be met are left out.
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


def align(
    graph: ComputationGraph,
    network: nn.Module,
    budget: Budget,
    inputs: Tree,
    multiples: Sequence[int] = MULTIPLES,
    latency: Callable[..., Mapping[str, float]] = paired_latency_ms,
) -> Alignment:
    """Measure networks that meet a budget with one keep ratio for all groups, and choose the smallest fast multiple.

    Args:
        graph: The traced network.
        network: The dense network, on the device of `inputs`, trained or not.
        budget: The budget, whatever its `channel_multiple`.
        inputs: A batch of inputs.
        multiples: Multiples to try, ascending.
        latency: Measures networks by name with `rounds` and `seconds`, in milliseconds.

    Raises:
        UserError: The budget cannot be met with any of the multiples; the message is that of the smallest one.
    """
    made: dict[str, nn.Module] = {}
    first: UserError | None = None
    for multiple in multiples:
        try:
            limits = budget.aligned(multiple).on(graph)
        except UserError as error:
            first = first or error
            continue
        made[str(multiple)] = graph.plan(network, limits.project(graph.widths)).apply(network)
    if not made:
        assert first is not None  # at least one was tried
        raise first
    found = dict(latency({"dense": network, **made}, inputs, rounds=ROUNDS, seconds=SECONDS))
    dense = found.pop("dense")
    fastest = min(found.values())
    chosen = next(name for name in made if found[name] <= CLOSE * fastest)
    return Alignment(int(chosen), {int(name): value for name, value in found.items()}, dense, count(inputs))
