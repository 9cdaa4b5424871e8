"""Operators that move elements; the same operator moves the labels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.tracing.labels import FIXED, ZERO, Use, Value, compact, support
from gnnrl_lightning.tracing.rules.elementwise import merge
from gnnrl_lightning.tracing.rules.reductions import over
from gnnrl_lightning.tracing.walk import Walk, fixed_labels, operator_name, rule


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
            walk.hold("unflattened_size", tuple(sizes), channels, place=0)
    return result


@rule("view", "reshape", "_unsafe_view", "flatten", "view_as", "reshape_as", kind="shape")
def view(walk: Walk, x: Value, *args: Any, **__: Any) -> Value:
    """Reshape: a channel dimension may be split into several, one of which shrinks, see `Labels.settle`."""
    sizes = args[0] if args and isinstance(args[0], (list, tuple)) else (-1,) * len(walk.shape)
    return _viewed(walk, x, sizes)


def _viewed(walk: Walk, x: Value, sizes: Sequence[int]) -> Value:
    moved, number = [], walk.call_number()
    for labels in x.labels:
        result = compact(labels.expand(x.shape).reshape(walk.shape))
        if len(support(labels)) == 1 and len(support(result)) > 1:
            walk.labels.splits.append(Use(result, walk.operator, walk.source))
        walk.sized(result, sizes, number)
        moved.append(result)
    return Value(walk.shape, tuple(moved))


@rule("permute", "transpose", "t", "numpy_T", "movedim", "swapaxes", "unsqueeze", kind="shape")
def permute(walk: Walk, x: Value, *args: Any) -> Value:
    """Permuted dimensions, or a new dimension."""
    return Value(walk.shape, tuple(_same_operator(walk, labels, *args) for labels in x.labels))


@rule("squeeze", "repeat", "tile", "repeat_interleave", "channel_shuffle", "native_channel_shuffle", "pixel_unshuffle",
      "diagonal", kind="shape")  # fmt: skip
def rearrange(walk: Walk, x: Value, *args: Any, **kwargs: Any) -> Value:
    """All other movements of elements."""
    moved = tuple(compact(_same_operator(walk, labels.expand(x.shape), *args, **kwargs)) for labels in x.labels)
    return Value(walk.shape, moved)


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
    for labels in made if args and isinstance(args[0], (list, tuple)) else ():
        walk.sized(labels, args[0], number)
    return Value(walk.shape, made)


@rule("expand_as", kind="shape")
def expand_as(walk: Walk, x: Value, like: Value) -> Value:
    """Repetition of dimensions of size 1 as often as another tensor has channels: it has their labels."""
    sizes = (*(1,) * (len(like.shape) - len(x.shape)), *x.shape)
    repeated = {dim for dim, size in enumerate(sizes) if size == 1}
    followed = tuple(labels for labels in like.labels if set(support(labels)) <= repeated)
    return Value(walk.shape, (*expand(walk, x).labels, *followed))


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


def _expand(labels: Tensor, value: Value, dim: int) -> Tensor:
    """Expand a label tensor to full size along `dim`, as required by operators along one dimension."""
    sizes = list(labels.shape)
    sizes[dim] = value.shape[dim]
    return labels.expand(sizes)


@rule("cat", "concatenate", kind="cat")
def cat(walk: Walk, tensors: list[Value], dim: int = 0) -> Value:
    """Concatenation: labels along `dim` are concatenated; along the other dimensions they are joined."""
    tensors = [value for value in tensors if value.shape != (0,)]
    dim %= len(walk.shape)
    several = [value for value in tensors if len(value.labels) > 1]
    if several:
        for value in tensors:
            walk.freeze(value, "is concatenated with labels on several dimensions")
        return Value(walk.shape)
    if not any(value.labels for value in tensors):
        return Value(walk.shape)
    labels = [fixed_labels(value) for value in tensors]
    supports = {support(each) for each in labels}
    if len(supports) == 1 and dim not in next(iter(supports)) and supports != {()}:
        # The concatenation is not along the channels: the operands share their channels.
        return Value(walk.shape, (functools.reduce(walk.join, labels),))
    parts = [_expand(each, value, dim) for each, value in zip(labels, tensors, strict=True)]
    others = torch.broadcast_shapes(*((*part.shape[:dim], *part.shape[dim + 1 :]) for part in parts))
    parts = [part.expand(*others[:dim], part.shape[dim], *others[dim:]) for part in parts]
    return Value(walk.shape, (compact(torch.cat(parts, dim)),))


@rule("stack", kind="cat")
def stack(walk: Walk, tensors: list[Value], dim: int = 0) -> Value:
    """Stacking along a new dimension: the operands share their channels."""
    dim %= len(walk.shape)
    laid = [Value(value.shape, tuple(labels.unsqueeze(dim) for labels in value.labels)) for value in tensors]
    shape = (*tensors[0].shape[:dim], 1, *tensors[0].shape[dim:])
    return Value(walk.shape, merge(walk, [Value(shape, value.labels) for value in laid]))


@rule("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split", kind="shape")
def split(walk: Walk, x: Value, sizes: Any, dim: int = 0) -> list[Value]:
    """Splits: equal pieces keep equal counts; sizes of unequal pieces are constants in the network's code."""
    assert walk.node is not None
    return _pieces(walk, x, [tuple(piece.shape) for piece in walk.node.meta["val"]], dim % len(x.shape))


@rule("glu", kind="activation")
def glu(walk: Walk, x: Value, dim: int = -1) -> Value:
    """One half of the channels, gated by the other: the halves share their channels."""
    return Value(walk.shape, merge(walk, _pieces(walk, x, [walk.shape] * 2, dim % len(x.shape))))


def _pieces(walk: Walk, x: Value, shapes: list[tuple[int, ...]], dim: int) -> list[Value]:
    """The pieces of these shapes along a dimension."""
    pieces: list[list[Tensor]] = [[] for _ in shapes]
    for labels in x.labels:
        parts = list(torch.split(_expand(labels, x, dim), [shape[dim] for shape in shapes], dim))
        if labels.shape[dim] > 1:
            _part(walk, parts, dim)
        for piece, part in zip(pieces, parts, strict=True):
            piece.append(compact(part))
    return [Value(shape, tuple(piece)) for shape, piece in zip(shapes, pieces, strict=True)]


def _part(walk: Walk, parts: list[Tensor], dim: int) -> None:
    """Tie equal parts of the channels; the network's own code determines the sizes of unequal ones.

    Channels that change along other dimensions, too, such as heads, go together along the one that is cut.
    """
    if any(set(support(part)) - {dim} for part in parts):
        walk.together(torch.cat(parts, dim), (dim,))
    elif len({part.numel() for part in parts}) == 1:
        walk.tie(torch.stack([part.flatten() for part in parts]))
    else:
        walk.labels.cut(parts, walk.operator, walk.source)


@rule("unbind", kind="shape")
def unbind(walk: Walk, x: Value, dim: int = 0) -> list[Value]:
    """Slices along a dimension."""
    dim %= len(x.shape)
    return [
        Value(walk.shape, tuple(compact(_expand(labels, x, dim).select(dim, i)) for labels in x.labels))
        for i in range(x.shape[dim])
    ]


@rule("slice", kind="shape")
def cut(walk: Walk, x: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Value:
    """Slicing: halves of the channels are tied, other pieces are frozen."""
    dim %= len(x.shape)
    if _overwritten(walk):
        return zeros(walk)
    kept = []
    for labels in x.labels:
        whole = _expand(labels, x, dim)
        part = torch.ops.aten.slice.Tensor(whole, dim, start, end, step)
        if labels.shape[dim] > 1 and part.shape[dim] < x.shape[dim]:
            inside = torch.zeros(x.shape[dim], dtype=torch.bool)
            inside[torch.arange(x.shape[dim])[start:end:step]] = True
            _part(walk, [whole.index_select(dim, index.nonzero().flatten()) for index in (inside, ~inside)], dim)
        kept.append(compact(part))
    return Value(walk.shape, tuple(kept))


def _overwritten(walk: Walk) -> bool:
    """Whether every reader of the operator's output only overwrites it."""
    assert walk.node is not None
    readers = walk.node.users
    return bool(readers) and all(operator_name(user.target) == "copy" and user.args[0] is walk.node for user in readers)


@rule("select", kind="shape")
def select(walk: Walk, x: Value, dim: int, index: int) -> Value:
    """Selection of one index: a channel selected by a constant number is frozen, a row of channels is not."""
    dim %= len(x.shape)
    for labels in x.labels:
        if labels.shape[dim] > 1 and support(labels)[-1] == dim:
            if support(labels) == (dim,):
                walk.freeze(labels, "is picked by its number")
            else:
                walk.together(labels, (dim,))
    return Value(walk.shape, tuple(compact(_expand(labels, x, dim).select(dim, index)) for labels in x.labels))


@rule("slice_scatter", kind="cat")
def slice_scatter(walk: Walk, x: Value, source: Value, dim: int = 0, start=None, end=None, step: int = 1) -> Value:
    """A write into a slice."""
    if len(x.labels) > 1 or len(source.labels) > 1:
        walk.freeze(x, "is written into on several labelled dimensions")
        walk.freeze(source, "is written into on several labelled dimensions")
        return Value(walk.shape)
    dim %= len(x.shape)
    base, piece = _expand(fixed_labels(x), x, dim), _expand(fixed_labels(source), source, dim)
    sizes = [max(a, b) for a, b in zip(base.shape, piece.shape, strict=True)]
    sizes[dim] = x.shape[dim]
    base = base.expand(sizes)
    sizes[dim] = source.shape[dim]
    written = torch.ops.aten.slice_scatter.default(base.contiguous(), piece.expand(sizes), dim, start, end, step)
    return Value(walk.shape, (compact(written),))


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
            if min(before, after) < 0 or (mode != "constant" and (before or after)):
                walk.freeze(labels, "is padded along the channels")
            ends = [list(labels.shape), list(labels.shape)]
            ends[0][dim], ends[1][dim] = max(before, 0), max(after, 0)
            labels = torch.cat([torch.full(ends[0], filler), labels, torch.full(ends[1], filler)], dim)
            labels = labels.narrow(dim, max(-before, 0), walk.shape[dim])  # negative widths cut
        padded.append(labels)
    return Value(walk.shape, tuple(padded))


@rule("zeros", "new_zeros", kind="other")
def zeros(walk: Walk, *_: Any, **__: Any) -> Value:
    """Zero tensors: they adopt the labels of tensors added to them."""
    return Value(walk.shape, (torch.full((1,) * len(walk.shape), ZERO),))


@rule("ones", "new_ones", "full", "new_full", "arange", "empty", "new_empty", "scalar_tensor", "linspace", kind="other")
def constant(walk: Walk, *args: Any, **__: Any) -> Value:
    """Constants in the network's code."""
    numbers = [a for a in args[1:] if isinstance(a, (int, float))] if walk.operator == "full" else []
    return zeros(walk) if numbers == [0] else Value(walk.shape)
