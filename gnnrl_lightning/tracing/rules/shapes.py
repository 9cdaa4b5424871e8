"""Operators that move elements; the same operator moves the labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.tracing.given_sizes import note_attribute, note_sizes
from gnnrl_lightning.tracing.labels import FIXED, ZERO, Use, Value, compact, support
from gnnrl_lightning.tracing.repeats import repeated, without_crossing
from gnnrl_lightning.tracing.rows import heads_of, share_rows
from gnnrl_lightning.tracing.rules.reductions import note_least, over
from gnnrl_lightning.tracing.walk import Walk, rule


@rule("alias", "clone", "contiguous", "detach", "lift_fresh_copy", "lift_fresh", "to", "_to_copy", "type_as",
      kind="shape")  # fmt: skip
def same(walk: Walk, x: Value, *_: Any, **__: Any) -> Value:
    """Copies and casts: a parameter remains one."""
    return x


@rule("dropout", "feature_dropout", "alpha_dropout", "zeros_like", "ones_like", "full_like",
      "empty_like", "rand_like", "randn_like", "bernoulli", "real", "imag", kind="shape")  # fmt: skip
def like(walk: Walk, x: Value, *_: Any, **__: Any) -> Value:
    """Operators that move no elements; tensors created like another one are pruned with it."""
    return Value(x.shape, x.labels)


@rule("unflatten", kind="shape")
def unflatten(walk: Walk, x: Value, dim: int, sizes: list[int]) -> Value:
    """A dimension becomes several; `nn.Unflatten` holds the number of channels, the first of their sizes."""
    result, dim = _viewed(walk, x, (*x.shape[:dim], *sizes, *x.shape[dim:][1:])), dim % len(x.shape)
    for labels in result.labels:
        if labels.shape[dim] > 1 and sizes[0] > 0:
            channels = labels.movedim(dim, 0).flatten(1)[:, 0]
            note_attribute(walk, "unflattened_size", tuple(sizes), channels, place=0)
    return result


@rule("view", "reshape", "_unsafe_view", "flatten", "view_as", "reshape_as", kind="shape")
def view(walk: Walk, x: Value, *args: Any, **__: Any) -> Value:
    """Reshape: a channel dimension may be split into several, one of which shrinks, see `Labels.settle`."""
    sizes = args[0] if args and isinstance(args[0], (list, tuple)) else (-1,) * len(walk.shape)
    return _viewed(walk, x, sizes)


def _viewed(walk: Walk, x: Value, sizes: Sequence[int]) -> Value:
    moved, number = [], walk.call_number()
    for labels in _crossed(walk, x):
        result = compact(labels.expand(x.shape).reshape(walk.shape))
        if len(support(labels)) == 1 and len(support(result)) > 1:
            walk.labels.splits.append(Use(result, walk.operator, walk.source))
        note_sizes(walk, result, sizes, number)
        moved.append(result)
    return without_crossing(walk, Value(walk.shape, tuple(moved)))


def _crossed(walk: Walk, x: Value) -> list[Tensor]:
    """Labels of a tensor of which a view makes one dimension of two with channels: these become channels of their own.

    `(head, channel)`, of which all heads have the same channels: whole heads go, or channels of every head. Parameters
    have labels along all dimensions, those of a kernel, too.
    """
    if walk.node in walk.derived:
        return list(x.labels)
    labels = [item for item in x.labels if support(item) and not walk.is_repeat(item)]
    laid = [{*support(compact(item.expand(x.shape).reshape(walk.shape)))} for item in labels]
    for j, inner in enumerate(labels):
        for i, outer in enumerate(labels):
            if laid[i] & laid[j] and max(support(outer)) < min(support(inner)):
                both = torch.maximum(*torch.broadcast_tensors(outer, inner))
                made = walk.labels.fresh(both.numel()).reshape(both.shape)
                walk.join(heads_of(walk, made, support(inner))[0], outer)
                share_rows(walk, made, support(inner), inner)
                rest = (item for item in x.labels if item is not outer and item is not inner)
                return _crossed(walk, Value(x.shape, (made, *rest)))
    return list(x.labels)


@rule("permute", "transpose", "t", "numpy_T", "mT", "mH", "adjoint", "movedim", "swapaxes", "unsqueeze", kind="shape")
def permute(walk: Walk, x: Value, *args: Any) -> Value:
    """Permuted dimensions, or a new dimension."""
    return Value(walk.shape, tuple(_same_operator(walk, labels, *args) for labels in x.labels))


@rule("squeeze", kind="shape")
def squeeze(walk: Walk, x: Value, *dims: Any) -> Value:
    """Dimensions of size 1 go; so would those of a single channel, of which two must remain therefore."""
    given = [dim for item in dims for dim in (item if isinstance(item, (list, tuple)) else (item,))]
    for dim in {dim % len(x.shape) for dim in given} or range(len(x.shape)):
        note_least(walk, x, (dim,))
    return rearrange(walk, x, *dims)


@rule("tile", "pixel_unshuffle", "diagonal", kind="shape")
def rearrange(walk: Walk, x: Value, *args: Any, **kwargs: Any) -> Value:
    """All other movements of elements."""
    moved = tuple(compact(_same_operator(walk, labels.expand(x.shape), *args, **kwargs)) for labels in x.labels)
    return Value(walk.shape, moved)


@rule("channel_shuffle", "native_channel_shuffle", kind="shape")
def channel_shuffle(walk: Walk, x: Value, groups: int) -> Value:
    """Groups of channels are interleaved: they keep equal counts."""
    if (channels := x.along(1)) is not None:
        walk.tie(channels.reshape(groups, -1))
    return rearrange(walk, x, groups)


@rule("repeat", "repeat_interleave", kind="shape")
def repeat(walk: Walk, x: Value, *args: Any, **kwargs: Any) -> Value:
    """Repetition of elements; along a dimension of size 1, as often as another tensor has channels or heads."""
    number, moved = walk.call_number(), rearrange(walk, x, *args, **kwargs)
    made = repeated(walk, x, walk.shape)
    for labels in made:
        note_sizes(walk, labels, walk.shape, number)
    return Value(walk.shape, (*moved.labels, *made))


@rule("pixel_shuffle", kind="shape")
def pixel_shuffle(walk: Walk, x: Value, factor: int) -> Value:
    """Blocks of `factor ** 2` channels become pixels of one: they go together."""
    dim = len(x.shape) - 3
    passed = over(walk, x, (dim + 1, dim + 2), "changes along the pixels that are shuffled")
    made = []
    for labels in passed.labels:
        blocks = labels.unflatten(dim, (-1, factor**2)) if labels.shape[dim] > 1 else labels.unsqueeze(dim + 1)
        walk.join(blocks.narrow(dim + 1, 0, 1), blocks)
        made.append(blocks.select(dim + 1, 0))
    return Value(walk.shape, tuple(made))


@rule("expand", "broadcast_to", kind="shape")
def expand(walk: Walk, x: Value, *args: Any, **__: Any) -> Value:
    """Repetition of dimensions of size 1: the labels do not change along them."""
    ndim, number = len(walk.shape), walk.call_number()
    made = tuple(labels.reshape((1,) * (ndim - labels.dim()) + labels.shape) for labels in x.labels)
    if args and isinstance(args[0], (list, tuple)):
        made += repeated(walk, x, walk.shape)
        for labels in made:
            note_sizes(walk, labels, args[0], number)
    return Value(walk.shape, made)


@rule("expand_as", kind="shape")
def expand_as(walk: Walk, x: Value, like: Value) -> Value:
    """Repetition of dimensions of size 1 as often as another tensor has channels: it has their labels."""
    sizes = (*(1,) * (len(like.shape) - len(x.shape)), *x.shape)
    repeated = {dim for dim, size in enumerate(sizes) if size == 1}
    made = list(expand(walk, x).labels)
    for labels in like.labels:
        inner, outer = set(support(labels)) & repeated, set(support(labels)) - repeated
        heads = [mine for mine in made if outer and set(support(mine)) == outer]
        if inner and heads and max(outer) < min(inner):  # a value for each head is repeated for its channels
            walk.join(heads_of(walk, labels, inner)[0], heads[0])
            made = [mine for mine in made if mine is not heads[0]]
        elif outer:
            continue
        made.append(labels)
    return Value(walk.shape, tuple(made))


@rule("broadcast_tensors", kind="shape")
def broadcast(walk: Walk, tensors: list[Value]) -> list[Value]:
    """Repetition of dimensions of size 1 of each tensor, as `expand_as` for those that have channels there."""
    made = []
    for i, value in enumerate(tensors):
        for like in (*tensors[:i], *tensors[i + 1 :]):
            value = expand_as(walk, value, expand(walk, like)) if like.shape != value.shape else value
        made.append(Value(walk.shape, expand(walk, value).labels))
    return made


@rule("triu", "tril", kind="shape")
def triangle(walk: Walk, x: Value, *_: Any) -> Value:
    """Zeros beside a diagonal of the last two dimensions: channels along them are frozen."""
    return over(walk, x, (len(x.shape) - 2, len(x.shape) - 1), "is cut along a diagonal")


@rule("roll", "flip", kind="shape")
def roll(walk: Walk, x: Value, *args: Any) -> Value:
    """Cyclic shift and reversal: shifted channels are frozen, reversed channels move with their labels."""
    dims = args[-1] if args else []
    named = {d % len(x.shape) for d in ((dims,) if isinstance(dims, int) else dims)} or set(range(len(x.shape)))
    kept = []
    for labels in x.labels:
        rolled = named & set(support(labels)) if walk.operator == "roll" else set()
        if rolled == set(support(labels)) and rolled:
            walk.freeze(labels, "is rolled along the channels")
            continue
        if rolled:
            walk.together(labels, rolled)
        kept.append(compact(_same_operator(walk, labels.expand(x.shape), *args)))
    return Value(walk.shape, tuple(kept))


def _same_operator(walk: Walk, labels: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    assert walk.node is not None
    return walk.node.target(labels, *args, **kwargs)  # type: ignore[operator]


@rule("constant_pad_nd", "pad", kind="shape")
def pad(walk: Walk, x: Value, widths: list[int], *rest: Any) -> Value:
    """Padding: zero padding adds channels that are always zero; other padding adds fixed ones."""
    value = next((item for item in rest if isinstance(item, (int, float))), 0.0)
    mode = next((item for item in rest if isinstance(item, str)), "constant")
    filler = ZERO if value == 0 and mode == "constant" else FIXED
    padded = []
    for labels in x.labels:
        for i, (before, after) in enumerate(zip(widths[::2], widths[1::2], strict=True)):
            dim = len(x.shape) - 1 - i
            if labels.shape[dim] == 1:
                continue  # padding along other dimensions: the same channels
            if mode != "constant" and (before or after) and support(labels) != (dim,):
                labels = walk.together(labels, (dim,))  # maps that a linear layer makes
                continue
            if min(before, after) < 0 or (mode != "constant" and (before or after)):
                walk.freeze(labels, "is padded along the channels")
            first, last = (_filler(walk, labels, dim, max(n, 0), filler) for n in (before, after))
            labels = torch.cat([first, labels, last], dim)
            labels = labels.narrow(dim, max(-before, 0), walk.shape[dim])  # negative widths cut
        padded.append(labels)
    return Value(walk.shape, tuple(padded))


def _filler(walk: Walk, labels: Tensor, dim: int, length: int, filler: int) -> Tensor:
    """Return the labels of what is added to channels along a dimension; a constant in every head goes with its head."""
    shape = [length if d == dim else size for d, size in enumerate(labels.shape)]
    if filler == FIXED and length and support(labels)[-1] == dim != support(labels)[0]:
        made = walk.labels.fresh(math.prod(shape)).reshape(shape)
        share_rows(walk, made, (dim,), torch.full((1,) * len(shape), FIXED))
        return made
    return torch.full(shape, filler)
