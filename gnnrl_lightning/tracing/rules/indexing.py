"""Operators that select or write elements through index tensors and masks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.tracing.labels import ZERO, Value
from gnnrl_lightning.tracing.rules.elementwise import merge
from gnnrl_lightning.tracing.rules.reductions import over
from gnnrl_lightning.tracing.walk import Gather, Walk, rule


@rule("index_select", kind="shape")
def index_select(walk: Walk, x: Value, dim: int, index: Value) -> Value:
    """Selection of channels through an index buffer, see `gather`."""
    return gather(walk, x, dim % len(x.shape), index)


@rule("index", kind="shape")
def index(walk: Walk, x: Value, indices: list[Any]) -> Value:
    """`x[:, index]` with a one-dimensional index buffer; any other indexing freezes the channels that it selects."""
    used = [(dim, item) for dim, item in enumerate(indices) if item is not None]
    if len(used) == 1 and len(used[0][1].shape) == 1:
        return gather(walk, x, *used[0])
    for _, item in used:
        walk.freeze(item, "is an index")
    masks = [place for place in _indices(walk) if place is not None and place.dtype in MASKS]
    touched = [dim for dim, _ in used]
    passed = over(walk, x, tuple(range(len(x.shape)) if masks else touched), "is indexed")
    new = (1,) * max(len(item.shape) for _, item in used)
    # The dimensions of the indices take the place of neighbouring ones, and come first otherwise.
    first = touched[0] if touched == list(range(touched[0], touched[-1] + 1)) else 0
    left = [[size for dim, size in enumerate(labels.shape) if dim not in touched] for labels in passed.labels]
    laid = (
        labels.reshape((*sizes[:first], *new, *sizes[first:]))
        for labels, sizes in zip(passed.labels, left, strict=True)
    )
    return Value(walk.shape, tuple(laid))


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
    """`x[mask] = number`: the mask has the channels of x; `x[mask] = vector`: the vector has those behind the mask.

    Any other channels of the values, and those of x along the indexed dimensions, are frozen.
    """
    if len(indices) == 1 and _is_mask(walk) and math.prod(values.shape) == 1:
        mask = indices[0]
        behind = (1,) * (len(x.shape) - len(mask.shape))
        laid = tuple(labels.reshape((*labels.shape, *behind)) for labels in mask.labels)
        return Value(x.shape, merge(walk, [x, Value((*mask.shape, *behind), laid)]))
    for item in indices:
        walk.freeze(item, "is written through an index")
    first, last = _written(walk)
    left = over(walk, x, tuple(range(first, last)), "is written into through an index")
    number = min(len(x.shape) - last, len(values.shape))
    others = len(values.shape) - number
    given = over(walk, values, tuple(range(others)), "is written through an index")
    laid = tuple(labels.reshape(labels.shape[others:]) for labels in given.labels)
    return Value(x.shape, merge(walk, [left, Value(values.shape[others:], laid)]))


def _written(walk: Walk) -> tuple[int, int]:
    """The first of the dimensions that the current operator indexes, and the one behind the last."""
    dim, touched = 0, []
    for item in _indices(walk):
        count = item.dim() if item is not None and item.dtype in MASKS else 1
        touched += [] if item is None else [dim, dim + count]
        dim += count
    return touched[0], touched[-1]


MASKS = (torch.bool, torch.uint8)
"""Types of indices that say for each element whether it is picked."""


def _is_mask(walk: Walk) -> bool:
    (index,) = _indices(walk)
    return index is not None and index.dtype == torch.bool


def _indices(walk: Walk) -> list[Tensor | None]:
    """The indices of the current operator, fake tensors."""
    assert walk.node is not None
    return [None if item is None else item.meta["val"] for item in walk.node.args[1]]  # type: ignore[union-attr]


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


@rule("index_add", "index_copy", "index_reduce", "scatter", "scatter_add", "scatter_reduce", kind="other")
def write_rows(walk: Walk, x: Value, dim: int, index: Value, source: Value | float, *_: Any, **__: Any) -> Value:
    """`out[index[i]][j] += source[i][j]`: channels along the indexed dimension are frozen, others act alone."""
    reason, of_elements = "is written through an index", walk.operator.startswith("scatter")
    values = [x, *((index,) if of_elements else ()), *((source,) if isinstance(source, Value) else ())]
    if not of_elements:  # one for each row
        walk.freeze(index, reason)
    dims = {dim % len(x.shape)}
    dims |= {d for d, sizes in enumerate(zip(*(value.shape for value in values), strict=True)) if len({*sizes}) > 1}
    passed = [over(walk, value, tuple(dims), reason) for value in values]
    shape = tuple(1 if d in dims else size for d, size in enumerate(x.shape))
    return Value(x.shape, merge(walk, [Value(shape, value.labels) for value in passed]))
