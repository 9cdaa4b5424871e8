"""The fastest precision and batch size to score candidates with, measured on the dense network."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from gnnrl_lightning.speed.inference import PRECISIONS, for_inference
from gnnrl_lightning.speed.memory import keep_freed_memory
from gnnrl_lightning.surgery.layers import Layer

AUTO = "auto"
"""Stands for what is found out: the precision that `tune` finds, or the repair that suits the network."""

REFERENCE = "32"
"""Name of the precision that the others have to agree with."""

BATCH_SIZES = (64, 128, 256, 512)
"""Batch sizes that are tried, in this order, until one is no faster than the one before."""

CHECKED = 256
"""Images on which precisions are compared."""

SAME_CLASS = 0.99
"""Share of the images that have to get a class that is as good as the reference's."""

AS_GOOD = 0.1
"""Nats by which a class may be less likely than the reference's best and yet as good: an untrained network has ties."""

DIVERGENCE = 0.01
"""Largest mean divergence from the reference, nats. Candidates differ by tenths, bfloat16 on ResNet-56 by 1e-5."""

REPEATS = 2
"""Times that each batch is timed; the fastest counts."""


@dataclass(frozen=True)
class Tuned:
    """What was found.

    Attributes:
        precision: A key of `PRECISIONS`.
        batch_size: Images in a batch.
        milliseconds: Precision -> time of an image in its best batch size.
        refused: Precisions whose outputs do not agree with those of float32.
    """

    precision: str
    batch_size: int
    milliseconds: Mapping[str, float]
    refused: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line for the user."""
        times = ", ".join(f"{name} {value:.2g} ms" for name, value in self.milliseconds.items())
        wrong = "".join(f"; {name} does not agree with {REFERENCE}" for name in self.refused)
        return f"candidates are scored in precision {self.precision}, {self.batch_size} images a batch ({times}{wrong})"


def tune(
    network: nn.Module,
    layers: Mapping[str, Layer],
    images: Tensor,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    clock: Callable[[], float] = time.perf_counter,
) -> Tuned:
    """Measure forward passes of a network that has been made fast as candidates are.

    A precision below float32 is taken only where it is faster and agrees with float32 on the first `CHECKED` images: as
    good a class for `SAME_CLASS` of them, and a mean divergence of at most `DIVERGENCE`.

    Args:
        network: The dense network; it is left as it is.
        layers: Its layers, see `find_layers`.
        images: Normalised images `(N, C, H, W)` of the search split.
        batch_sizes: Sizes to try, ascending; those above N are left out, but not the first.
        clock: Seconds.
    """
    keep_freed_memory()
    sizes = [batch_sizes[0], *(size for size in batch_sizes[1:] if size <= len(images))]
    found: dict[str, tuple[float, int]] = {}
    refused = []
    reference = None
    with torch.inference_mode():
        for name in sorted(PRECISIONS, key=lambda name: name != REFERENCE):
            fast = for_inference(copy.deepcopy(network).eval(), layers, PRECISIONS[name])
            inputs = images.to(dtype=PRECISIONS[name], memory_format=torch.channels_last)
            parts = [fast(part).float() for part in inputs[:CHECKED].split(sizes[0])]  # which warms up, too
            outputs = log_softmax(torch.cat(parts), 1)
            reference = outputs if reference is None else reference
            if agrees(outputs, reference):
                found[name] = _fastest(fast, inputs, sizes, clock)
            else:
                refused.append(name)
    precision = min(found, key=lambda name: found[name][0]) if found else REFERENCE
    size = found[precision][1] if found else sizes[0]
    return Tuned(precision, size, {name: 1000 * seconds for name, (seconds, _) in found.items()}, tuple(refused))


def agrees(outputs: Tensor, reference: Tensor) -> bool:
    """Whether log-probabilities `(N, classes)` are those of the reference but for rounding."""
    chosen = reference.gather(1, outputs.argmax(1, keepdim=True))[:, 0]
    as_good = (chosen >= reference.amax(1) - AS_GOOD).float().mean()
    divergence = kl_div(outputs, reference, log_target=True, reduction="batchmean")
    return bool(outputs.isfinite().all()) and float(as_good) >= SAME_CLASS and float(divergence) <= DIVERGENCE


def _fastest(network: nn.Module, inputs: Tensor, sizes: Sequence[int], clock: Callable[[], float]) -> tuple[float, int]:
    """Seconds an image in the best batch size, and that size."""
    best: tuple[float, int] | None = None
    for size in sizes:
        batch = inputs[:size]
        taken = min(_seconds(network, batch, clock) for _ in range(REPEATS)) / len(batch)
        if best is not None and taken >= best[0]:
            break
        best = taken, size
    assert best is not None
    return best


def _seconds(network: nn.Module, batch: Tensor, clock: Callable[[], float]) -> float:
    start = clock()
    float(network(batch).sum())  # waits for the device
    return clock() - start
