"""Operators of torchvision: regions of interest, deformable convolutions."""

from __future__ import annotations

from typing import Any

from gnnrl_lightning.tracing.labels import Value, vector
from gnnrl_lightning.tracing.rules.reductions import over
from gnnrl_lightning.tracing.walk import Walk, rule


@rule("roi_align", "roi_pool", kind="pool")
def regions(walk: Walk, x: Value, boxes: Value, *_: Any, **__: Any) -> Any:
    """Maps `(K, C, h, w)` of K boxes: channels pass, coordinates stay."""
    walk.freeze(boxes, "is the coordinate of a box")
    passed = over(walk, x, (0, 2, 3), "changes along the positions of a box")
    result = Value(walk.shape, passed.labels)
    return result if walk.operator == "roi_align" else (result, Value(walk.shape))


@rule("deform_conv2d", kind="conv")
def deformable(
    walk: Walk, x: Value, weight: Value, offset: Value, mask: Value, bias: Value, *rest: Any, **__: Any
) -> Value:
    """Deformable convolution: channels as in a convolution, offsets and masks stay. It counts no MACs.

    The last arguments are strides, paddings and dilations (six), groups of weights, groups of offsets, and a flag.
    """
    for value in (offset, mask):
        walk.freeze(value, "is an offset or a mask of a deformable convolution")
    over(walk, x, (0, 2, 3), "lies along the positions over which a convolution slides")
    inputs, reads, writes = x.along(1), weight.along(1), weight.along(0)
    walk.contract(())
    if tuple(rest[6:8]) != (1, 1) or inputs is None or reads is None or writes is None:
        for value in (x, weight, bias):
            walk.freeze(value, "is part of a deformable convolution whose channels cannot be told apart")
        walk.keep(walk.shape[1], "is made by a deformable convolution whose channels cannot be told apart")
        return Value(walk.shape)
    walk.join(inputs, reads)
    walk.consumed.append(reads)
    if (added := bias.along(0)) is not None:
        walk.join(writes, added)
    walk.produce(writes)
    return Value(walk.shape, (vector(writes, 4, 1),))
