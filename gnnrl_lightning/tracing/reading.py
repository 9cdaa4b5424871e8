"""Dimensions of parameters along which a walk has found that channels are read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gnnrl_lightning.tracing.walk import Walk


def masked_labels(walk: Walk) -> set[int]:
    """Return the labels of parameter dimensions that a mask sets to zero: those along which channels are read."""
    return _with_joined(walk, walk.consumed)


def read_labels(walk: Walk) -> set[int]:
    """Return the labels of parameter dimensions along which channels are read, including sums of parameters."""
    return _with_joined(walk, [*walk.consumed, *walk.computed])


def _with_joined(walk: Walk, labels: Sequence[Tensor]) -> set[int]:
    """Return the given labels and those that operators on parameters join with them."""
    joined: dict[int, set[int]] = {}
    for a, b in walk.joined_parameters:
        for one, other in zip(*(side.flatten().tolist() for side in torch.broadcast_tensors(a, b)), strict=True):
            joined.setdefault(one, set()).add(other)
            joined.setdefault(other, set()).add(one)
    found = set(torch.cat([each.flatten() for each in labels]).tolist()) if labels else set[int]()
    waiting = list(found) if joined else []
    while waiting:
        fresh = joined.get(waiting.pop(), set()) - found
        found |= fresh
        waiting.extend(fresh)
    return found
