"""Operators that cut tensors into parts, put parts together, or make constants."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.tracing.given_sizes import note_split, note_zeros
from gnnrl_lightning.tracing.labels import ZERO, Value, compact, is_zero, support
from gnnrl_lightning.tracing.rules.elementwise import merge
from gnnrl_lightning.tracing.walk import Walk, fixed_labels, operator_name, rule

SIZED_AS = ("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like")
"""Operators that make a tensor of the sizes of another one, and read none of its values."""


def _expand(labels: Tensor, value: Value, dim: int) -> Tensor:
    """Expand a label tensor to full size along `dim`, as required by operators along one dimension."""
    sizes = list(labels.shape)
    sizes[dim] = value.shape[dim]
    return labels.expand(sizes)


@rule("cat", kind="cat")
def cat(walk: Walk, tensors: list[Value], dim: int = 0) -> Value:
    """Concatenation: labels along `dim` are concatenated; along the other dimensions they are joined."""
    tensors = [value for value in tensors if value.shape != (0,)]
    dim %= len(walk.shape)
    if all(len(value.labels) < 2 for value in tensors):
        return Value(walk.shape, _concatenated(walk, tensors, dim))
    tensors = [_without_single(walk, value) for value in tensors]
    made: list[Tensor] = []
    changing = dict.fromkeys(frozenset(support(each)) - {dim} for value in tensors for each in value.labels
                             if support(each) or not is_zero(each))  # fmt: skip
    for others in changing:
        mine = [_changing(value, dim, others) for value in tensors]
        if all(len(value.labels) < 2 for value in mine):
            made += _concatenated(walk, mine, dim)
            continue
        for value in mine:
            walk.freeze(value, "is concatenated with labels on several dimensions")
    return Value(walk.shape, tuple(made))


@rule("hstack", "vstack", kind="cat")
def stack_along(walk: Walk, tensors: list[Value]) -> Value:
    """A concatenation along the second or the first dimension of tensors that have both."""
    if any(len(value.shape) < 2 for value in tensors):
        raise NotImplementedError("tensors of one dimension")
    return cat(walk, tensors, 1 if walk.operator == "hstack" else 0)


def _without_single(walk: Walk, value: Value) -> Value:
    """A tensor with channels without the label of the only position along another dimension, which stays: a token."""
    single = [each for each in value.labels if not support(each) and not is_zero(each) and len(value.labels) > 1]
    for labels in single:
        walk.freeze(labels, "is concatenated as a single position")
    return Value(value.shape, tuple(each for each in value.labels if not any(each is one for one in single)))


def _changing(value: Value, dim: int, others: frozenset[int]) -> Value:
    """The labels of a tensor that change along these dimensions and, perhaps, along `dim`; zeros adopt them."""
    mine = (each for each in value.labels if is_zero(each) or frozenset(support(each)) - {dim} == others)
    return Value(value.shape, tuple(mine))


def _concatenated(walk: Walk, tensors: list[Value], dim: int) -> tuple[Tensor, ...]:
    """Labels of a concatenation of tensors with one label tensor at most."""
    if not any(value.labels for value in tensors):
        return ()
    labels = [fixed_labels(value) for value in tensors]
    supports = {support(each) for each in labels if not is_zero(each)}
    if len(supports) == 1 and dim not in next(iter(supports)) and supports != {()}:
        # The concatenation is not along the channels: the operands share their channels, and zeros adopt them.
        joined = functools.reduce(walk.join, labels)
        note_zeros(walk, joined)
        return (joined,)
    supports = {support(each) for each in labels}
    if supports - {()} and all(dim not in each for each in supports) and not all(value.labels for value in tensors):
        for value in tensors:  # along the channels, another tensor has none
            walk.freeze(value, "is concatenated with values that cannot be pruned")
        return ()
    parts = [_expand(each, value, dim) for each, value in zip(labels, tensors, strict=True)]
    others = torch.broadcast_shapes(*((*part.shape[:dim], *part.shape[dim + 1 :]) for part in parts))
    parts = [part.expand(*others[:dim], part.shape[dim], *others[dim:]) for part in parts]
    return (compact(torch.cat(parts, dim)),)


@rule("stack", kind="cat")
def stack(walk: Walk, tensors: list[Value], dim: int = 0) -> Value:
    """Stacking along a new dimension: the operands share their channels."""
    dim %= len(walk.shape)
    laid = [Value(value.shape, tuple(labels.unsqueeze(dim) for labels in value.labels)) for value in tensors]
    shape = (*tensors[0].shape[:dim], 1, *tensors[0].shape[dim:])
    return Value(walk.shape, merge(walk, [Value(shape, value.labels) for value in laid]))


@rule("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split", kind="shape")
def split(walk: Walk, x: Value, sizes: Any, dim: int = 0) -> list[Value]:
    """Splits: equal pieces keep equal counts, unless the module holds their sizes, see `tracing.sizes.splits`."""
    assert walk.node is not None
    shapes, dim = [tuple(piece.shape) for piece in walk.node.meta["val"]], dim % len(x.shape)
    if "chunk" in walk.operator or "tensor" in walk.operator:
        return _pieces(walk, x, shapes, dim)
    return _pieces(walk, x, shapes, dim, (sizes,) if isinstance(sizes, int) else tuple(sizes))


@rule("glu", kind="activation")
def glu(walk: Walk, x: Value, dim: int = -1) -> Value:
    """One half of the channels, gated by the other: the halves share their channels."""
    return Value(walk.shape, merge(walk, _pieces(walk, x, [walk.shape] * 2, dim % len(x.shape))))


def _pieces(walk: Walk, x: Value, shapes: list[tuple[int, ...]], dim: int, sizes: tuple[int, ...] = ()) -> list[Value]:
    """The pieces of these shapes along a dimension, with the sizes that the code gives."""
    pieces: list[list[Tensor]] = [[] for _ in shapes]
    number = walk.call_number("split") if sizes else 0
    for labels in x.labels:
        parts = list(torch.split(_expand(labels, x, dim), [shape[dim] for shape in shapes], dim))
        rows = labels.numel() // labels.shape[dim] if support(labels)[-1:] == (dim,) else 0
        if labels.shape[dim] > 1 and not (rows and note_split(walk, parts, sizes, number, rows=rows)):
            _part(walk, parts, dim, given=bool(sizes))
        for piece, part in zip(pieces, parts, strict=True):
            piece.append(compact(part))
    return [Value(shape, tuple(piece)) for shape, piece in zip(shapes, pieces, strict=True)]


def _part(walk: Walk, parts: list[Tensor], dim: int, given: bool) -> None:
    """Record parts of the channels, of which the code gives the sizes or only the number.

    Channels that change along earlier dimensions, too, such as heads, are parted in each of these rows; along the
    dimension that is cut they go together if they change along later ones.
    """
    found = {each for part in parts for each in support(part)}
    if any(each > dim for each in found):
        walk.together(torch.cat(parts, dim), (dim,))
    elif found <= {dim}:
        record = walk.labels.part if given else walk.labels.divide
        record([part.flatten() for part in parts], walk.operator, walk.source)
    else:
        walk.labels.part_rows(parts, walk.operator, walk.source)


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
    """Slicing: halves of the channels are tied; of other pieces, see `Parts`, or `tracing.sizes.splits`."""
    dim %= len(x.shape)
    if _overwritten(walk):
        return zeros(walk)
    first, last, step = slice(start, end, step).indices(x.shape[dim])
    if last - first == 1 and _only_sized(walk):
        return Value(walk.shape, x.others(dim))
    return _sliced(walk, x, dim, first, max(first, last), step)


@rule("narrow", kind="shape")
def narrow(walk: Walk, x: Value, dim: int, start: int, length: int) -> Value:
    """Slicing by the first index and the number of channels."""
    first = start % x.shape[dim % len(x.shape)]
    return _sliced(walk, x, dim % len(x.shape), first, first + length, 1)


def _sliced(walk: Walk, x: Value, dim: int, start: int, end: int, step: int) -> Value:
    whole = (start, end) == (0, x.shape[dim])
    number, kept = 0 if whole else walk.call_number("slice"), []
    for labels in x.labels:
        full = _expand(labels, x, dim)
        part = torch.ops.aten.slice.Tensor(full, dim, start, end, step)
        if labels.shape[dim] > 1 and part.shape[dim] < x.shape[dim]:
            cuts = [full.narrow(dim, *ends) for ends in ((0, start), (start, end - start), (end, x.shape[dim] - end))]
            plain = step == 1 and support(labels) == (dim,)
            if not (plain and note_split(walk, cuts, (start, end), number, "slice")):
                inside = torch.zeros(x.shape[dim], dtype=torch.bool)
                inside[start:end:step] = True
                _part(
                    walk,
                    [full.index_select(dim, index.nonzero().flatten()) for index in (inside, ~inside)],
                    dim,
                    given=True,
                )
        kept.append(compact(part))
    return Value(walk.shape, tuple(kept))


def _overwritten(walk: Walk) -> bool:
    """Whether every reader of the operator's output only overwrites it."""
    assert walk.node is not None
    readers = walk.node.users
    return bool(readers) and all(operator_name(user.target) == "copy" and user.args[0] is walk.node for user in readers)


def _only_sized(walk: Walk) -> bool:
    """Whether every reader of the operator's output only takes its sizes: `torch.ones_like(x[:, :1])`."""
    assert walk.node is not None
    readers = walk.node.users
    return bool(readers) and all(operator_name(user.target) in SIZED_AS for user in readers)


@rule("select", kind="shape")
def select(walk: Walk, x: Value, dim: int, index: int) -> Value:
    """Selection of one index: a channel selected by a constant number is frozen, a row of channels is not."""
    dim %= len(x.shape)
    if _overwritten(walk):
        return zeros(walk)
    for labels in x.labels:
        if labels.shape[dim] > 1 and support(labels)[-1] == dim:
            if support(labels) == (dim,):
                walk.freeze(labels, "is picked by its number")
            else:
                walk.together(labels, (dim,))
    return Value(walk.shape, tuple(compact(_expand(labels, x, dim).select(dim, index)) for labels in x.labels))


@rule("slice_scatter", kind="cat")
def slice_scatter(walk: Walk, x: Value, source: Value, dim: int = 0, start=None, end=None, step: int = 1) -> Value:
    """A write into a slice, whose end may be an attribute of the module, see `tracing.sizes.splits`."""
    dim %= len(x.shape)
    first, last, _ = slice(start, end, step).indices(x.shape[dim])
    if (first, last) != (0, x.shape[dim]):
        number, around = walk.call_number("slice_scatter"), x.along(dim)
        written = source.along(dim) if source.shape[dim] > 1 else None
        if step == 1 and around is not None and written is not None:
            note_split(walk, [around[:first], written, around[last:]], (first, last), number, "slice_scatter")
    return _written(walk, x, source, dim, start, end, step)


def _written(walk: Walk, x: Value, source: Value, dim: int, start: Any, end: Any, step: int) -> Value:
    if len(x.labels) > 1 or len(source.labels) > 1:
        walk.freeze(x, "is written into on several labelled dimensions")
        walk.freeze(source, "is written into on several labelled dimensions")
        return Value(walk.shape)
    both = [each.labels[0] for each in (x, source) if each.labels]
    if len(both) == 2 and any(map(support, both)) and all(labels.shape[dim] == 1 for labels in both):
        note_zeros(walk, joined := walk.join(*both))
        return Value(walk.shape, (joined,))  # not along the channels, which both share
    base, piece = _expand(fixed_labels(x), x, dim), _expand(fixed_labels(source), source, dim)
    sizes = [max(a, b) for a, b in zip(base.shape, piece.shape, strict=True)]
    sizes[dim] = x.shape[dim]
    base = base.expand(sizes)
    sizes[dim] = source.shape[dim]
    written = torch.ops.aten.slice_scatter.default(base.contiguous(), piece.expand(sizes), dim, start, end, step)
    return Value(walk.shape, (compact(written),))


@rule("select_scatter", kind="cat")
def select_scatter(walk: Walk, x: Value, source: Value, dim: int, index: int) -> Value:
    """A write at one index of a dimension."""
    dim %= len(x.shape)
    laid = tuple(labels.unsqueeze(dim) for labels in source.labels)
    one, first = Value((*x.shape[:dim], 1, *x.shape[dim + 1 :]), laid), index % x.shape[dim]
    return _written(walk, x, one, dim, first, first + 1, 1)


@rule("zeros", "new_zeros", kind="other")
def zeros(walk: Walk, *_: Any, **__: Any) -> Value:
    """Zero tensors: they adopt the labels of tensors added to them, or written into them."""
    if walk.node is not None and walk.operator in ("zeros", "new_zeros"):
        walk.created[walk.node] = walk.operator, walk.call_number(), walk.shape
    return Value(walk.shape, (torch.full((1,) * len(walk.shape), ZERO),))


@rule("zero", "fill", kind="other")
def set_to_number(walk: Walk, x: Value, value: Any = 0) -> Value:
    """`zero_` and `fill_`: channels remain channels; a tensor without any is a constant."""
    if any(support(labels) for labels in x.labels):
        return x
    return zeros(walk) if isinstance(value, (int, float)) and value == 0 else Value(walk.shape)


@rule("ones", "new_ones", "full", "new_full", "arange", "empty", "new_empty", "scalar_tensor", "linspace", kind="other")
def constant(walk: Walk, *args: Any, **__: Any) -> Value:
    """Constants in the network's code."""
    numbers = [a for a in args[1:] if isinstance(a, (int, float))] if walk.operator == "full" else []
    return zeros(walk) if numbers == [0] else Value(walk.shape)
