"""Elementwise operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.node import Node, map_aggregate

from gnnrl_lightning.tracing.labels import FIXED, ZERO, Value, is_zero, support, vector
from gnnrl_lightning.tracing.records import Scaling
from gnnrl_lightning.tracing.repeats import end_where_alone
from gnnrl_lightning.tracing.rows import heads_of, share_rows
from gnnrl_lightning.tracing.walk import Walk, operator_name, rule

VIEWS = (
    "view",
    "reshape",
    "flatten",
    "unflatten",
    "permute",
    "transpose",
    "unsqueeze",
    "squeeze",
    "clone",
    "contiguous",
)
"""Operators between a product and the number that scales it."""


@rule(
    "pointwise",
    "hardswish",
    "log_sigmoid",
    "complex",
    "polar",
    "_conj",
    "fake_quantize_per_tensor_affine",
    "__and__",
    "__or__",
    "__xor__",
    kind="activation",
)
def pointwise(walk: Walk, *args: Any, **kwargs: Any) -> Value:
    """Join channels at the same position; zeros remain zero only if the operator maps zero to zero."""
    result = combined(walk, [argument for argument in (*args, *kwargs.values()) if isinstance(argument, Value)])
    if any(bool((labels == ZERO).any()) for labels in result.labels) and not _keeps_zero(walk, args, kwargs):
        fixed = tuple(torch.where(labels == ZERO, FIXED, labels) for labels in result.labels)
        return Value(result.shape, fixed)
    return result


def combined(walk: Walk, operands: list[Value]) -> Value:
    """Join channels at the same position, for an operator that maps zero to zero."""
    if len(operands) > 1:
        operands = _without_positions(walk, operands)
    return Value(walk.shape, merge(walk, operands))


def _without_positions(walk: Walk, operands: list[Value]) -> list[Value]:
    """Operands without labels of parameters along dimensions that are no channels of another operand.

    An embedding of positions is as long as there are positions: it stays so, and its result has none of these labels.
    """
    assert walk.node is not None
    made = [node in walk.derived for node in walk.node.all_input_nodes]
    if len(made) != len(operands) or all(made):
        return operands
    others = [value for value, derived in zip(operands, made, strict=True) if not derived]
    return [_bound(walk, value, others) if made[i] else value for i, value in enumerate(operands)]


def _bound(walk: Walk, value: Value, others: list[Value]) -> Value:
    """A parameter without the labels along dimensions, counted from the last, that are no channels of another value."""
    kept = []
    for labels in value.labels:
        mine = {dim - len(value.shape) for dim in support(labels)}
        if any(_are_positions(other, mine) for other in others):
            walk.freeze(labels, "is combined with values that cannot be pruned")
        else:
            kept.append(labels)
    return Value(value.shape, tuple(kept))


def _are_positions(value: Value, dims: set[int]) -> bool:
    long = not any(_is_broadcast(value, dim) for dim in dims)
    zero = any(not support(labels) for labels in value.labels)
    return bool(dims) and long and not zero and all(labels.shape[dim] == 1 for labels in value.labels for dim in dims)


def _is_broadcast(value: Value, dim: int) -> bool:
    """Whether a tensor is of size 1, or has no dimension, at a place that is counted from the right."""
    return dim < -len(value.shape) or value.shape[dim] == 1


@rule("add", "sub", "rsub", kind="add")
def add(walk: Walk, *args: Any, **kwargs: Any) -> Value:
    """Sums of branches."""
    return pointwise(walk, *args, **kwargs)


@rule("mul", "div", kind="mul")
def mul(walk: Walk, *args: Any, **kwargs: Any) -> Value:
    """Products: gates, layer scales, products of heads and a number that may depend on their width."""
    number = walk.call_number()
    if len(args) > 1 and isinstance(args[0], Value) and _is_number(args[1]):
        value = float(args[1]) if isinstance(args[1], (int, float)) else None
        contracted = _contracted(walk)
        for labels in args[0].labels if contracted is None else (contracted,):
            if support(labels):
                walk.scalings.append(Scaling(walk.module, walk.operator, number, value, labels))
    produce_outer(walk, [argument for argument in args if isinstance(argument, Value)])
    return pointwise(walk, *args, **kwargs)


def _is_number(argument: Any) -> bool:
    return isinstance(argument, (int, float)) or (isinstance(argument, Value) and argument.shape == ())


def _contracted(walk: Walk) -> Tensor | None:
    """Labels that the first operand has contracted or summarised, before views of it."""
    assert walk.node is not None
    made = walk.node.args[0]
    while isinstance(made, Node) and made not in walk.scores and operator_name(made.target) in VIEWS:
        made = made.args[0]
    return walk.scores.get(made) if isinstance(made, Node) else None


def produce_outer(walk: Walk, operands: Sequence[Value]) -> None:
    """Record the channels that a parameter makes of inputs that are broadcast along them: `x[..., None] * self.weight`.

    Positions of a kernel whose other dimensions meet channels are none, nor are frequencies of positions.

    Args:
        walk: The walk.
        operands: The tensors that the current operator multiplies, whose dimensions are aligned at the right.
    """
    assert walk.node is not None
    nodes = walk.node.all_input_nodes
    if walk.node in walk.derived or len(nodes) != len(operands):
        return
    sides = [(value, node in walk.derived) for value, node in zip(operands, nodes, strict=True)]
    others = [value for value, derived in sides if not derived]
    met = {dim - len(other.shape) for other in others for labels in other.labels for dim in support(labels)}
    for value, derived in sides:
        along = {dim - len(value.shape): labels for labels in value.labels for dim in support(labels)}
        for dim, labels in along.items() if derived and met.isdisjoint(along) else ():
            outer = len(support(labels)) == 1 and all(_is_broadcast(other, dim) for other in others)
            if outer and _reads_inputs(walk, walk.node):
                walk.produce(labels.flatten())


def _reads_inputs(walk: Walk, node: Node) -> bool:
    """Whether a node is computed from inputs of the network, not from constants and parameters only."""
    known, left = {node}, [node]
    while left:
        before = left.pop()
        if before.op == "placeholder" and before not in walk.derived:
            return True
        left += [item for item in before.all_input_nodes if item not in known]
        known.update(before.all_input_nodes)
    return False


def merge(walk: Walk, operands: list[Value]) -> tuple[Tensor, ...]:
    """Return the labels of an elementwise result: label tensors that change along the same dimensions are joined.

    An operand of size 1 along those dimensions is broadcast and adds no constraint. A longer operand without such
    labels fixes the size: the labels are frozen, or go together along it if they change along other dimensions, too.
    Labels along the first of several dimensions of another operand's channels are those of heads.
    """
    ndim, operands = len(walk.shape), end_where_alone(walk, operands)
    aligned = [
        (
            (1,) * (ndim - len(value.shape)) + value.shape,
            [labels.reshape((1,) * (ndim - labels.dim()) + tuple(labels.shape)) for labels in value.labels],
        )
        for value in operands
    ]
    if len(aligned) > 1:
        aligned = [
            (shape, [_as_rows(walk, labels, [*aligned[:i], *aligned[i + 1 :]]) for labels in found])
            for i, (shape, found) in enumerate(aligned)
        ]
    dims_seen = dict.fromkeys(support(labels) for _, found in aligned for labels in found)
    merged: list[Tensor] = []
    for dims in dims_seen:
        if not dims:
            continue
        result: Tensor | None = None
        rigid: set[int] = set()
        larger: list[Tensor] = []
        for shape, found in aligned:
            mine = [labels for labels in found if support(labels) == dims]
            zero = any(is_zero(labels) for labels in found)
            if not mine and (zero or all(shape[dim] == 1 for dim in dims)):
                continue
            labelled = {dim for labels in found for dim in support(labels) if {*support(labels)} < {*dims}}
            stiff = {dim for dim in dims if shape[dim] > 1} - labelled
            if not mine and len(stiff) < len(dims):
                rigid |= stiff  # labels along some of these dimensions are merged on their own
                continue
            within = next((labels for labels in found if _lies_within(dims, support(labels))), None)
            if not mine and within is not None:
                larger.append(within)
                continue
            labels = mine[0] if mine else _of_several(walk, found, dims)
            result = labels if result is None else walk.join(result, labels)
        if result is not None:
            if rigid:
                walk.together(result, rigid)
            for labels in larger:
                share_rows(walk, labels, dims, result)
            merged.append(result)
    if not merged and aligned and all(_all_zero(found) for _, found in aligned):
        return (torch.full((1,) * ndim, ZERO),)
    return tuple(merged) if len(merged) < 2 else tuple(_widest(merged))


def _as_rows(walk: Walk, labels: Tensor, others: list[tuple[tuple[int, ...], list[Tensor]]]) -> Tensor:
    """Labels that go as a whole along dimensions of their own, where another operand has other channels in each row.

    An involution has one kernel for several channels: `(row, 1, tap) * (row, channel, tap)`.
    """
    dims = {*support(labels)}
    for shape, found in others:
        crossing = [support(other) for other in found if _cross(support(labels), support(other))]
        taken = {dim for other in found for dim in support(other)}
        rigid = {dim for dim in dims - taken if shape[dim] > 1}
        if crossing and rigid:
            labels = walk.together(labels, rigid)
            dims -= rigid
    return labels


def _cross(dims: tuple[int, ...], others: tuple[int, ...]) -> bool:
    """Whether two kinds of channels have dimensions of their own, after others that they share: rows."""
    same = {*dims} & {*others}
    own = {*dims} ^ same, {*others} ^ same
    return bool(same) and all(own) and max(same) < min(own[0] | own[1])


def _lies_within(dims: tuple[int, ...], others: tuple[int, ...]) -> bool:
    """Whether channels lie along the last of the dimensions of other channels: of each of their rows, the same ones."""
    return {*dims} < {*others} and min(dims) > max({*others} - {*dims})


def _of_several(walk: Walk, found: list[Tensor], dims: tuple[int, ...]) -> Tensor:
    """Return labels along `dims` of an operand without such labels: of its heads, or FIXED."""
    for labels in found:
        others = set(support(labels)) - {*dims}
        if {*dims} < {*support(labels)}:
            if max(dims) < min(others):
                return heads_of(walk, labels, others)[0]
            walk.together(labels, dims)
    return torch.full((1,) * max((labels.dim() for labels in found), default=1), FIXED)


def _widest(merged: list[Tensor]) -> list[Tensor]:
    """Leave out labels along dimensions along which others change as well: those of heads, or of parts of a head."""
    return [labels for labels in merged if not any({*support(labels)} < {*support(other)} for other in merged)]


def _all_zero(found: list[Tensor]) -> bool:
    return bool(found) and all(bool((labels == ZERO).all()) for labels in found)


def _keeps_zero(walk: Walk, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the current operator returns zero if all its tensors are zero."""
    node = walk.node
    assert node is not None

    def zero(argument: Any) -> Any:
        if isinstance(argument, Node):
            value = argument.meta["val"]
            return torch.zeros((), dtype=value.dtype) if isinstance(value, Tensor) else value
        return argument

    result = node.target(  # type: ignore[operator]
        *map_aggregate(node.args, zero), **map_aggregate(node.kwargs, zero)
    )
    return not bool(result.any())


@rule("copy", kind="shape")
def copy(walk: Walk, x: Value, source: Value, *_: Any) -> Value:
    """`copy_`: the result has the labels of its source, broadcast."""
    return Value(walk.shape, merge(walk, [source, Value(x.shape, (torch.full((1,) * len(x.shape), ZERO),))]))


@rule("prelu", "_prelu_kernel", kind="activation")
def prelu(walk: Walk, x: Value, weight: Value) -> Value:
    """PReLU with one slope per channel."""
    slopes = weight.along(0) if len(weight.shape) == 1 else None
    if slopes is None:
        return pointwise(walk, x, weight)
    laid = Value((1, weight.shape[0], *(1,) * (len(x.shape) - 2)), (vector(slopes, len(x.shape), 1),))
    return pointwise(walk, x, laid)


@rule("native_dropout", kind="activation")
def dropout(walk: Walk, x: Value, *_: Any) -> tuple[Value, Value]:
    """Dropout and its mask."""
    return x, x


@rule("bucketize", kind="activation")
def bucketize(walk: Walk, x: Value, boundaries: Value, **_: Any) -> Value:
    """The interval of each element; the boundaries stay as they are."""
    walk.freeze(boundaries, "are the boundaries of intervals")
    return pointwise(walk, x)
