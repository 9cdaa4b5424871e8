"""Dimensions along which code repeats a tensor: `mask[:, None].expand(-1, self.heads, -1, -1)`.

All elements along such a dimension are equal, so that it shrinks with the channels or heads of a tensor that it is
combined with, if the size that the code gives does: its labels are channels that no layer makes. They end where it
meets a dimension without channels, or an operator that is not elementwise.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor
from torch.fx.node import map_aggregate

from gnnrl_lightning.tracing.labels import Value, support, vector
from gnnrl_lightning.tracing.walk import RuleRow, Walk

PASSED = ("shape", "activation", "add", "mul", "attention")
"""Kinds of operators that repeated dimensions pass."""

PRODUCTS = ("matmul", "bmm", "baddbmm", "einsum")
"""Operators of other kinds that they pass along batch dimensions, see `end_outside`."""


def repeated(walk: Walk, x: Value, shape: Sequence[int]) -> tuple[Tensor, ...]:
    """Return labels of the dimensions of size 1 that the current operator makes longer, aligned at the right.

    Args:
        walk: The walk.
        x: The operand.
        shape: Shape of the result.
    """
    sizes = (*(1,) * (len(shape) - len(x.shape)), *x.shape)
    longer = [dim for dim, (before, after) in enumerate(zip(sizes, shape, strict=True)) if before == 1 < after]
    made = tuple(vector(walk.labels.fresh(shape[dim]), len(shape), dim) for dim in longer)
    walk.repeats.update(label for labels in made for label in labels.flatten().tolist())
    return made


def end_repeats(walk: Walk, row: RuleRow | None, arguments: Any) -> Any:
    """Return the arguments of an operator without the labels of repeated dimensions, unless they pass it."""
    if not walk.repeats or (row is not None and (row.kind in PASSED or walk.operator in PRODUCTS)):
        return arguments

    def end(argument: Any) -> Any:
        return _without(walk, argument, ()) if isinstance(argument, Value) else argument

    return map_aggregate(arguments, end)


def end_where_alone(walk: Walk, operands: Sequence[Value]) -> list[Value]:
    """Return operands of an elementwise operator without repeats along dimensions of others that have no channels."""
    if not walk.repeats:
        return list(operands)
    dims = [[_from_right(labels, value) for labels in value.labels] for value in operands]
    made = []
    for i, value in enumerate(operands):
        others = [(other, dims[j]) for j, other in enumerate(operands) if j != i]
        kept = [mine for mine in dims[i] if not any(_has_none(other, found, mine) for other, found in others)]
        made.append(_without(walk, value, kept))
    return made


def end_outside(walk: Walk, value: Value, dims: Collection[int]) -> Value:
    """Return a value without repeats along other than the given dimensions."""
    ndim = len(value.shape)
    found = (_from_right(labels, value) for labels in value.labels) if walk.repeats else ()
    return _without(walk, value, [mine for mine in found if all(dim + ndim in dims for dim in mine)])


def without_crossing(walk: Walk, value: Value) -> Value:
    """Return a value without repeats along dimensions in which a view has also laid other labels."""
    if not walk.repeats:
        return value
    dims = [_from_right(labels, value) for labels in value.labels]
    alone = [mine for i, mine in enumerate(dims) if not any(mine & other for other in (*dims[:i], *dims[i + 1 :]))]
    return _without(walk, value, alone)


def _without(walk: Walk, value: Value, kept: Sequence[frozenset[int]]) -> Value:
    """A value whose repeats are those along the given dimensions; the sizes of the others stay."""
    gone = [item for item in value.labels if walk.is_repeat(item) and _from_right(item, value) not in kept]
    for labels in gone:
        walk.freeze(labels, "is combined with values that cannot be pruned")
    if not gone:
        return value
    return Value(value.shape, tuple(item for item in value.labels if not any(item is labels for labels in gone)))


def _from_right(labels: Tensor, value: Value) -> frozenset[int]:
    return frozenset(dim - len(value.shape) for dim in support(labels))


def _has_none(value: Value, found: Sequence[frozenset[int]], dims: frozenset[int]) -> bool:
    """Whether a value is longer than 1 along dimensions, and has no channels there."""
    if any(not labels for labels in found):
        return False  # zeros adopt all labels
    ndim = len(value.shape)
    return any(dim >= -ndim and value.shape[dim] > 1 and not any(dim in labels for labels in found) for dim in dims)
