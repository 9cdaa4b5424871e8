"""Shapes of the feature maps of a pruned network, as its graph predicts them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from gnnrl_lightning.tracing.groups import Channels
from gnnrl_lightning.tracing.labels import Value, shrinking, support
from gnnrl_lightning.tracing.records import Step

Shape = tuple[int, ...]


def shapes_by_line(steps: Sequence[Step], channels: Channels, widths: Tensor) -> dict[tuple[str, Shape], set[Shape]]:
    """Return line of the user's code and dense shape -> shapes of the outputs that it computes at `widths (G,)`."""
    found: dict[tuple[str, Shape], set[Shape]] = defaultdict(set)
    unknown = set()
    for step in steps:
        key = step.line, step.output.shape
        shape = pruned_shape(step.output, channels, widths)
        found[key].add(shape or ())
        unknown |= {key} if shape is None or not step.line else set()
    return {key: shapes for key, shapes in found.items() if key not in unknown}


def pruned_shape(value: Value, channels: Channels, widths: Tensor) -> Shape | None:
    """Return the shape of a tensor at `widths (G,)`, or None if channels of two kinds lie along one dimension.

    Of channels that are split over several dimensions, one shrinks, see `Labels.settle`.
    """
    shape = list(value.shape)
    taken: set[int] = set()
    for labels in value.labels:
        if taken & set(support(labels)):
            return None
        taken |= set(support(labels))
        found = shrinking(labels, torch.from_numpy(channels.numbers)[labels])
        if found:
            dim, along, unit = found
            axis = channels.axis(along)
            shape[dim] = shape[dim] if axis is None else int(axis.size(widths)) // unit
    return tuple(shape)
