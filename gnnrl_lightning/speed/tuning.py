"""The fastest precision and batch size to score candidates with, measured on the dense network."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from gnnrl_lightning.networks.channels_last import runs_channels_last
from gnnrl_lightning.networks.copies import independent_copy
from gnnrl_lightning.objective import Objective
from gnnrl_lightning.speed.inference import PRECISIONS, for_inference
from gnnrl_lightning.speed.memory import keep_freed_memory
from gnnrl_lightning.surgery.layers import Layer
from gnnrl_lightning.training.options import REFERENCE
from gnnrl_lightning.trees import Tree, call, channels_last, count, floats, join, split, take, tensors

BATCH_SIZES = (64, 128, 256, 512)
"""Batch sizes to try, in this order, until one is no faster than the previous one."""

CHECKED = 256
"""Number of examples on which precisions are compared."""

REPEATS = 2
"""Number of measurements of each batch; the fastest one counts."""


@dataclass(frozen=True)
class Tuned:
    """The fastest precision and batch size, with the measurements.

    Attributes:
        precision: A key of `PRECISIONS`.
        batch_size: Examples in a batch.
        milliseconds: Precision -> time per example with its best batch size, milliseconds.
        refused: Precisions in which the network fails, or does not agree with float32.
    """

    precision: str
    batch_size: int
    milliseconds: Mapping[str, float]
    refused: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line for the user."""
        times = ", ".join(f"{name} {value:.2g} ms" for name, value in self.milliseconds.items())
        wrong = "".join(f"; {name} does not agree with {REFERENCE}" for name in self.refused)
        return (
            f"candidates are scored in precision {self.precision}, {self.batch_size} examples a batch ({times}{wrong})"
        )


def tune(
    network: nn.Module,
    layers: Mapping[str, Layer],
    inputs: Tree,
    objective: Objective,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    clock: Callable[[], float] = time.perf_counter,
) -> Tuned:
    """Measure forward passes of a network that is optimised in the same way as candidates.

    A precision below float32 is chosen only if it is faster and agrees with float32 on the first `CHECKED` examples,
    see `Objective.agrees`.

    Args:
        network: The dense network; it is not changed.
        layers: Its layers, see `find_layers`.
        inputs: Normalised inputs of N examples of the holdout.
        objective: Decides whether outputs agree.
        batch_sizes: Sizes to try, ascending; those above N are skipped, except the first one.
        clock: Returns the time, seconds.
    """
    keep_freed_memory()
    sizes = [batch_sizes[0], *(size for size in batch_sizes[1:] if size <= count(inputs))]
    found: dict[str, tuple[float, int]] = {}
    refused = []
    reference = None
    last = runs_channels_last(network, inputs)
    with torch.inference_mode():
        for name in sorted(PRECISIONS, key=lambda name: name != REFERENCE):
            fast = for_inference(independent_copy(network).eval(), layers, PRECISIONS[name], last)
            given = channels_last(floats(inputs, PRECISIONS[name]), last)
            parts = split(take(given, slice(CHECKED)), sizes[0])
            try:
                outputs = join([floats(call(fast, part)) for part in parts])  # which warms up, too
            except (RuntimeError, TypeError):  # an operator that has no kernel for this precision
                if name == REFERENCE:
                    raise
                refused.append(name)
                continue
            reference = outputs if reference is None else reference
            if objective.agrees(outputs, reference):
                found[name] = _fastest(fast, given, sizes, clock)
            else:
                refused.append(name)
    precision = min(found, key=lambda name: found[name][0]) if found else REFERENCE
    size = found[precision][1] if found else sizes[0]
    return Tuned(precision, size, {name: 1000 * seconds for name, (seconds, _) in found.items()}, tuple(refused))


def _fastest(network: nn.Module, inputs: Tree, sizes: Sequence[int], clock: Callable[[], float]) -> tuple[float, int]:
    """Return the seconds per example with the best batch size, and that size."""
    best: tuple[float, int] | None = None
    for size in sizes:
        batch = take(inputs, slice(size))
        taken = min(_seconds(network, batch, clock) for _ in range(REPEATS)) / count(batch)
        if best is not None and taken >= best[0]:
            break
        best = taken, size
    assert best is not None
    return best


def _seconds(network: nn.Module, batch: Tree, clock: Callable[[], float]) -> float:
    start = clock()
    float(tensors(call(network, batch))[0].sum())  # waits for the device
    return clock() - start
