"""Operators that summarise, reduce or order the elements along dimensions."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from gnnrl_lightning.tracing.labels import Value, leading, support
from gnnrl_lightning.tracing.rows import heads_of
from gnnrl_lightning.tracing.rules.elementwise import pointwise
from gnnrl_lightning.tracing.walk import Walk, rule

SPREADS = ("var", "std", "var_mean", "std_mean")
"""Summaries that need two values unless they are told to divide by the number of all of them."""

OF_ROWS = ("mean", "sum", *SPREADS)
"""Summaries that the masked reference computes for rows of channels which each keep others."""


def _dims(value: Value, dim: Any) -> tuple[int, ...]:
    ndim = len(value.shape)
    if dim is None or dim == [] or dim == ():
        return tuple(range(ndim))
    return tuple(d % ndim for d in ((dim,) if isinstance(dim, int) else dim))


def over(walk: Walk, x: Value, dims: tuple[int, ...], reason: str) -> Value:
    """Freeze the labels that change along `dims`, and return the others."""
    kept = []
    for labels in x.labels:
        if set(support(labels)) & set(dims):
            walk.freeze(labels, reason)
        else:
            kept.append(labels)
    return Value(x.shape, tuple(kept))


def blocks(walk: Walk, x: Value, dims: Iterable[int], reason: str) -> Value:
    """Join the labels along `dims` that change along other dimensions, too: such blocks of channels go as a whole.

    Labels that change along `dims` only are frozen; the result has all others.
    """
    along, kept = set(dims), []
    for labels in x.labels:
        crossing = set(support(labels)) & along
        if crossing and crossing == set(support(labels)):
            walk.freeze(labels, reason)
            continue
        if crossing:
            walk.together(labels, crossing)
        kept.append(labels)
    return Value(x.shape, tuple(kept))


def summarise(walk: Walk, x: Value, dims: Iterable[int], reason: str, number: int | None = None) -> Value:
    """Record the channels along `dims` that an operator summarises together, see `Statistic`.

    Channels that a view has split, of which only some dimensions are summarised, go together along these: the halves
    of the channels, or each channel with its neighbour. Labels that change in other ways are frozen.
    """
    along, number = set(dims), walk.call_number() if number is None else number
    for labels in x.labels:
        if set(support(labels)) - along:
            walk.together(labels, set(support(labels)) & along)
    found = Value(x.shape, tuple(first(labels, along) for labels in x.labels))
    crossing = {dims for labels in found.labels if set(dims := support(labels)) & along}
    if any(len(dims) > 1 for dims in crossing):
        return over(walk, found, tuple(along), reason)
    for labels in found.labels:
        if support(labels) in crossing:
            walk.statistic(number, support(labels)[0], labels.flatten())
            if walk.node is not None:
                walk.scores[walk.node] = labels
    return found


def first(labels: Tensor, along: set[int]) -> Tensor:
    """The first labels along the dimensions that are summarised, if the labels change along others, too."""
    dims = set(support(labels))
    return leading(labels, dims & along) if dims - along else labels


@rule("linalg_vector_norm", "linalg_norm", kind="pool")
def norm(walk: Walk, x: Value, order: float | str | None = 2, dim: Any = None, *_: Any, **__: Any) -> Value:
    """Norm over dimensions: of the channels along them, of those that are kept; of a matrix, they are frozen."""
    dims = _dims(x, dim)
    if walk.operator == "linalg_norm" and order is not None and len(dims) > 1:
        return _reduced(walk, over(walk, x, dims, "is part of the norm of a matrix"), dims)
    number = walk.call_number()
    if order is None or (isinstance(order, (int, float)) and order > 0):
        x = Value(x.shape, tuple(_of_head(walk, labels, dims, number) for labels in x.labels))
    return _reduced(walk, summarise(walk, x, dims, "is reduced over", number), dims)


def _of_head(walk: Walk, labels: Tensor, dims: tuple[int, ...], number: int) -> Tensor:
    """Labels of heads where an operator summarises the channels of each of them, see `rows.heads_of`."""
    along = support(labels)
    if len(along) < 2 or along[-1:] != dims:
        return labels
    walk.statistic(number, along[-1], labels)
    return heads_of(walk, labels, dims)[0]


@rule("mean", "sum", "amax", "amin", "logsumexp", "prod", "var", "std", "var_mean", "std_mean", kind="pool")
def summary(walk: Walk, x: Value, *args: Any, **kwargs: Any) -> Any:
    """Summary over dimensions: of the channels along them, of those that are kept."""
    dims = _dims(x, kwargs.get("dim", args[0] if args and not isinstance(args[0], bool) else None))
    number = walk.call_number()
    if walk.operator in SPREADS:
        note_least(walk, x, dims, _correction(args, kwargs))
    if walk.operator in OF_ROWS:
        x = Value(x.shape, tuple(_of_head(walk, labels, dims, number) for labels in x.labels))
    passed = summarise(walk, x, dims, "is reduced over", number)
    result = _reduced(walk, passed, dims)
    return (result, result) if walk.operator in ("var_mean", "std_mean") else result


def _correction(args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:
    """By how much the number of values is reduced by which a variance divides: 1 unless the code says otherwise."""
    flags = [item for item in args if isinstance(item, bool)]
    given = kwargs.get("correction", kwargs.get("unbiased", flags[0] if flags else None))
    return 1.0 if given is None else float(given)


def note_least(walk: Walk, x: Value, dims: Collection[int], correction: float = 1.0) -> None:
    """Record how many channels along `dims` must remain, of each row of them: their variance needs so many values.

    Args:
        walk: The walk.
        x: The tensor.
        dims: The dimensions over which the variance is.
        correction: By how much the number of values is reduced by which it divides.
    """
    values = math.prod(x.shape[dim] for dim in dims)
    for labels in x.labels:
        along = {*support(labels)} & {*dims}
        size = x.shape[min(along)] if len(along) == 1 else 0
        if size and (least := int(correction // (values // size)) + 1) > 1:
            walk.least += [(row, least) for row in labels.movedim(min(along), -1).reshape(-1, size)]


@rule("max", "min", kind="pool")
def extremum(walk: Walk, x: Value, *args: Any, **kwargs: Any) -> Any:
    """Extremum over a dimension, over all of them, or of two tensors.

    Along the channels, the index of an extremum is the number of a channel: they are frozen if it is used.
    """
    if isinstance(args[0] if args else None, Value):
        walk.call_number()
        return pointwise(walk, x, *args)
    assert walk.node is not None
    dim = kwargs.get("dim", args[0] if args else None)
    dims = _dims(x, dim)
    if dim is not None and any(user.args[1] != 0 and user.users for user in walk.node.users):
        walk.call_number()
        passed = over(walk, x, dims, "is reduced over")
    else:
        passed = summarise(walk, x, dims, "is reduced over")
    result = _reduced(walk, passed, dims)
    return result if dim is None else (result, result)


@rule("norm", "any", "all", "argmax", "argmin", kind="pool")
def reduce(walk: Walk, x: Value, *args: Any, **kwargs: Any) -> Value:
    """Reduction over dimensions: channels along them are frozen."""
    positional = args[1:] if walk.operator == "norm" else args
    dim = kwargs.get("dim", positional[0] if positional and not isinstance(positional[0], bool) else None)
    dims = _dims(x, dim)
    return _reduced(walk, blocks(walk, x, dims, "is reduced over"), dims)


def _reduced(walk: Walk, x: Value, dims: tuple[int, ...]) -> Value:
    """Labels after dimensions are reduced: those that change along others; the first of each block."""
    left = tuple(
        first(labels, {*dims}) for labels in x.labels if set(support(labels)) - set(dims) or not support(labels)
    )
    if len(walk.shape) == len(x.shape):
        return Value(walk.shape, left)
    kept = [d for d in range(len(x.shape)) if d not in dims]
    return Value(walk.shape, tuple(labels.reshape([labels.shape[d] for d in kept]) for labels in left))


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", kind="other")
def softmax(walk: Walk, x: Value, dim: int = -1, *_: Any, **__: Any) -> Value:
    """Softmax along a dimension: over the channels along it that are kept.

    Channels that a view has split go together along the dimension unless it is the last of theirs, which shrinks.
    """
    (dim,), number = _dims(x, dim), walk.call_number(walk.operator.lstrip("_"))
    made = []
    for labels in x.labels:
        dims = support(labels)
        if dim in dims[:-1]:
            labels = walk.together(labels, (dim,))
        elif dim in dims:
            walk.statistic(number, dim, labels if len(dims) > 1 else labels.flatten(), walk.operator.lstrip("_"))
        made.append(labels)
    return Value(walk.shape, tuple(made))


@rule("cumsum", "logcumsumexp", "cummax", "cummin", "argsort", kind="other")
def along_dimension(walk: Walk, x: Value, dim: int = -1, *_: Any, **__: Any) -> Any:
    """Operators along one dimension: channels along it are frozen, blocks of them go as a whole."""
    dims = _dims(x, dim)
    found = blocks(walk, x, dims, "is combined with the other channels")
    left = tuple(first(labels, {*dims}) for labels in found.labels if {*support(labels)} != {*dims})
    result = Value(walk.shape, left)
    return (result, result) if walk.operator in ("cummax", "cummin") else result


@rule("median", "nanmedian", "mode", "kthvalue", kind="pool")
def ranked(walk: Walk, x: Value, *args: Any, **kwargs: Any) -> Any:
    """A value of a rank along a dimension, with its index, or over all of them: channels along it are frozen."""
    positional, last = (
        (args[1:], -1) if walk.operator == "kthvalue" else (args, -1 if walk.operator == "mode" else None)
    )
    dim = kwargs.get("dim", positional[0] if positional else last)
    dims = _dims(x, dim)
    result = _reduced(walk, over(walk, x, dims, "is reduced over"), dims)
    return result if dim is None else (result, result)


@rule(
    "_linalg_det",
    "_linalg_eigh",
    "_linalg_slogdet",
    "_linalg_svd",
    "linalg_cholesky_ex",
    "linalg_inv_ex",
    "linalg_matrix_exp",
    "linalg_qr",
    kind="other",
)
def matrices(walk: Walk, x: Value, *_: Any, **__: Any) -> Any:
    """Functions of the matrices in the last two dimensions: channels along these are frozen, others act alone."""
    batch = len(x.shape) - 2
    kept = [
        labels.reshape(labels.shape[:batch])
        for labels in over(walk, x, (batch, batch + 1), "is part of a matrix").labels
    ]

    def laid(made: Tensor) -> Value:
        if made.dim() < batch:  # no matrices: Q, where R alone is asked for
            return Value(tuple(made.shape))
        inner = (1,) * (made.dim() - batch)
        return Value(tuple(made.shape), tuple(labels.reshape((*labels.shape, *inner)) for labels in kept))

    assert walk.node is not None
    value = walk.node.meta["val"]
    return tuple(map(laid, value)) if isinstance(value, (tuple, list)) else laid(value)


@rule("cosine_similarity", "pairwise_distance", "cdist", kind="pool")
def distance(walk: Walk, x: Value, other: Value, *args: Any, **kwargs: Any) -> Value:
    """Similarity or distance of vectors, over their elements: of the channels along them, of those that are kept."""
    given = kwargs.get("dim", args[0] if args else 1) if walk.operator == "cosine_similarity" else -1
    number, ndim = walk.call_number(), max(len(x.shape), len(other.shape))
    dim = given % ndim
    first, second = (value.along(dim) if len(value.shape) == ndim else None for value in (x, other))
    compared = () if first is None or second is None else (dim,)
    for labels in (*x.labels, *other.labels):
        if support(labels) != compared:
            walk.freeze(labels, "is compared with values that cannot be pruned")
    if first is not None and second is not None:
        walk.statistic(number, dim, walk.join(first, second))
    return Value(walk.shape)


@rule("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", kind="pool")
def loss(walk: Walk, x: Value, target: Value, reduction: int = 1, *_: Any, **__: Any) -> Value:
    """Mean or sum of what two tensors differ by, over all elements: of the channels that are kept in both."""
    number = walk.call_number()
    if reduction == 0:
        return pointwise(walk, x, target)
    same = [dim for dim in range(len(x.shape)) if x.shape == target.shape]
    both = {dim: (x.along(dim), target.along(dim)) for dim in same}
    compared = {dim: pair for dim, pair in both.items() if None not in pair}
    for labels in (*x.labels, *target.labels):
        if len(support(labels)) != 1 or support(labels)[0] not in compared:
            walk.freeze(labels, "is compared with values that cannot be pruned")
    for dim, (first, second) in compared.items():
        assert first is not None and second is not None
        walk.statistic(number, dim, walk.join(first, second))
    return Value(walk.shape)


@rule("sort", "topk", kind="other")
def ordered(walk: Walk, x: Value, *args: Any, **kwargs: Any) -> tuple[Value, Value]:
    """The sorted or largest elements along a dimension with their indices: channels along it are frozen."""
    positional = args[1:] if walk.operator == "topk" else [item for item in args if not isinstance(item, bool)]
    dim = kwargs.get("dim", positional[0] if positional else -1)
    result = Value(walk.shape, over(walk, x, _dims(x, dim), "is combined with the other channels").labels)
    return result, result
