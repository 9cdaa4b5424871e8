"""Operators that select or write elements through index tensors and masks."""

from __future__ import annotations

import math
from typing import Any

import torch

from gnnrl_lightning.tracing.labels import ZERO, Value, support
from gnnrl_lightning.tracing.rules.elementwise import merge
from gnnrl_lightning.tracing.rules.reductions import over
from gnnrl_lightning.tracing.walk import Gather, Walk, rule


@rule("index_select", kind="shape")
def index_select(walk: Walk, x: Value, dim: int, index: Value) -> Value:
    """Selection of channels through an index buffer, see `gather`."""
    return gather(walk, x, dim % len(x.shape), index)


@rule("index", kind="shape")
def index(walk: Walk, x: Value, indices: list[Any]) -> Value:
    """`x[:, index]` with a one-dimensional index buffer; any other indexing freezes the channels."""
    used = [(dim, item) for dim, item in enumerate(indices) if item is not None]
    if len(used) == 1 and len(used[0][1].shape) == 1:
        return gather(walk, x, *used[0])
    touched = {dim for dim, _ in used}
    for labels in x.labels:
        walk.freeze(labels, "is indexed")
    for _, item in used:
        walk.freeze(item, "is an index")
    if touched & {d for labels in x.labels for d in support(labels)} or len(walk.shape) != len(x.shape):
        return Value(walk.shape)
    return Value(walk.shape, x.labels)


def gather(walk: Walk, x: Value, dim: int, index: Value) -> Value:
    """`out[j] = x[index[j]]` along channels.

    Pruning rewrites the buffer. If x has a channel that is always zero, an output whose input was pruned reads that
    channel, so the outputs have their own labels; otherwise an output has the label of the channel that it reads.
    """
    crossing = [labels for labels in x.labels if labels.shape[dim] > 1]
    passing = tuple(labels for labels in x.labels if labels.shape[dim] == 1)
    name = walk.parameter_name(index)
    outputs, inputs = index.along(0), x.along(dim)
    if not crossing:
        walk.freeze(index, "indexes values that cannot be pruned")
        return Value(walk.shape, passing)
    if name is None or outputs is None or inputs is None or len(crossing) > 1:
        for labels in crossing:
            walk.freeze(labels, "is picked through an index that is not a buffer")
        walk.freeze(index, "is an index")
        return Value(walk.shape, passing)
    read = inputs[walk.network.get_buffer(name).cpu()]
    walk.labels.tag(inputs)
    walk.gathers.append(Gather(name, inputs))
    labels = outputs if bool((inputs == ZERO).any()) else walk.join(outputs, read)
    shape = [1] * len(walk.shape)
    shape[dim] = -1
    return Value(walk.shape, (*passing, labels.reshape(shape)))


@rule("index_put", kind="other")
def index_put(walk: Walk, x: Value, indices: list[Any], values: Value, *_: Any) -> Value:
    """`x[mask] = number`: the mask has the channels of x; any other assignment freezes the indexed channels."""
    if len(indices) == 1 and _is_mask(walk) and math.prod(values.shape) == 1:
        mask = indices[0]
        behind = (1,) * (len(x.shape) - len(mask.shape))
        laid = tuple(labels.reshape((*labels.shape, *behind)) for labels in mask.labels)
        return Value(x.shape, merge(walk, [x, Value((*mask.shape, *behind), laid)]))
    for item in (*indices, values):
        walk.freeze(item, "is written through an index")
    touched = [dim for dim, item in enumerate(indices) if item is not None]
    return over(walk, x, tuple(range(min(touched), len(x.shape))), "is written into through an index")


def _is_mask(walk: Walk) -> bool:
    assert walk.node is not None
    (index,) = walk.node.args[1]  # type: ignore[misc]
    return index.meta["val"].dtype == torch.bool  # type: ignore[union-attr]


@rule("gather", "take_along_dim", kind="other")
def take_along(walk: Walk, x: Value, *args: Any, **kwargs: Any) -> Value:
    """`out[i][j] = x[index[i][j]][j]`: channels along the indexed dimension are frozen."""
    index, dim = (args[1], args[0]) if walk.operator == "gather" else (args[0], kwargs.get("dim", (*args, None)[1]))
    dims = tuple(range(len(x.shape))) if dim is None else (dim % len(x.shape),)
    passed = [over(walk, value, dims, "is picked through an index that is not a buffer") for value in (x, index)]
    if len(x.shape) != len(walk.shape):
        return Value(walk.shape)
    shapes = [tuple(1 if d in dims else size for d, size in enumerate(value.shape)) for value in (x, index)]
    return Value(walk.shape, merge(walk, [Value(s, v.labels) for s, v in zip(shapes, passed, strict=True)]))
