"""Sizes of calls with more channels: one head more, or one channel more in every head."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from gnnrl_lightning.tracing.labels import shrinking, support
from gnnrl_lightning.tracing.records import SizedCall
from gnnrl_lightning.tracing.sizes.recorder import Call, Sizes

Grown = dict[Call, Sizes]
"""Other sizes of the calls of one module."""


More = Callable[[Tensor], int]
"""Labels along a dimension -> by how many it is longer."""


def grown_sizes(calls: Sequence[SizedCall], numbers: np.ndarray, more: More) -> dict[str, Grown]:
    """Return the sizes of calls, by module, with one head more, or with one channel more in every head."""
    found: dict[str, Grown] = {}
    for call in calls:
        grown = found.setdefault(call.module, {})
        sizes = _grow(call, numbers, more)
        before = grown.get(key_of(call), call.shape)
        grown[key_of(call)] = tuple(map(max, sizes, before))
    return found


def flat_sizes(calls: Sequence[SizedCall], grown: Grown) -> dict[int, int]:
    """Return dense and other size of the dimensions of which views make several: those of a module's inputs."""
    found = {}
    for call in calls:
        dims = support(call.labels)
        found[call.labels.numel()] = math.prod(grown[key_of(call)][dim] for dim in dims)
    return found


def _grow(call: SizedCall, numbers: np.ndarray, more: More) -> Sizes:
    found = shrinking_of(call, numbers)
    if found is None:
        return call.shape
    dim, along, rows = found
    longer = next((n for row in along.reshape(rows, -1) if (n := more(row))), 0)
    return tuple(size + longer if d == dim else size for d, size in enumerate(call.shape))


def shrinking_of(call: SizedCall, numbers: np.ndarray) -> tuple[int, Tensor, int] | None:
    """Return which dimension of a call's output shrinks, given the channel of each label; see `labels.shrinking`."""
    return shrinking(call.labels, torch.from_numpy(numbers)[call.labels])


def key_of(call: SizedCall) -> Call:
    """Return name and number of a call."""
    return call.operator, call.number


def free(labels: Tensor) -> np.ndarray:
    """Return the labels of a tensor that are channels."""
    return labels[labels >= 0].numpy()


def one_more_of(numbers: np.ndarray, along: Tensor) -> int:
    """Return how many more labels there are with one channel more, given the channel of each label."""
    return len(along) // max(len(np.unique(numbers[free(along)])), 1)
