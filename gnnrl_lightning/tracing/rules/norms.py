"""Normalisations, and reparametrised weights that are divided by a norm.

Batch and instance norms have one statistic per channel: channels pass. Group norm has one per block of channels: whole
blocks go. Statistics over all channels (layer norm, RMS norm) are over the channels that are kept, see
`gnnrl_lightning.surgery.reference`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from gnnrl_lightning.tracing.given_sizes import note_attribute
from gnnrl_lightning.tracing.labels import FIXED, ZERO, Value, support, vector
from gnnrl_lightning.tracing.rows import share_rows
from gnnrl_lightning.tracing.rules.elementwise import merge
from gnnrl_lightning.tracing.rules.reductions import note_least, summarise
from gnnrl_lightning.tracing.walk import Walk, find_rule, rule

NORMALISED = "is normalised together with the other channels"
"""Why channels stay of which a norm has one statistic."""


@rule("_native_batch_norm_legit_no_training", "batch_norm", "native_batch_norm", kind="norm")
def batch_norm(walk: Walk, x: Value, *rest: Any) -> Any:
    """Batch normalisation with running statistics: weight, bias and statistics belong to the channels."""
    _record_norm(walk, x, rest)
    if walk.node in walk.derived:  # standardised weights: one statistic per filter, over the inputs that are kept
        dims = 0, *range(2, len(x.shape))
        x = summarise(walk, x, dims, "is standardised together with other dimensions")
        note_least(walk, x, dims)
    result = _scaled(walk, x, rest[:4])
    return result if walk.operator == "batch_norm" else (result, Value((0,)), Value((0,)))


@rule("instance_norm", kind="norm")
def instance_norm(walk: Walk, x: Value, *rest: Any) -> Value:
    """Statistics over each channel of each example: channels pass, as in batch norm."""
    _record_norm(walk, x, rest)
    if (channels := x.along(1)) is not None:
        note_attribute(walk, "num_features", x.shape[1], channels)  # PyTorch compares them where it has no parameters
    return _scaled(walk, x, rest[:4])


@rule("layer_norm", "native_layer_norm", "rms_norm", kind="norm")
def layer_norm(walk: Walk, x: Value, normalized_shape: Sequence[int], *affine: Any) -> Any:
    """Statistics over the last dimensions: over the channels that are kept."""
    first = len(x.shape) - len(normalized_shape)
    number = walk.call_number()
    within = [labels for labels in x.labels if first + 1 == len(x.shape) and _is_within(support(labels), first)]
    others = Value(x.shape, tuple(labels for labels in x.labels if not any(labels is item for item in within)))
    passed = summarise(walk, others, range(first, len(x.shape)), NORMALISED, number)
    for labels in within:  # each head is normalised on its own
        common = walk.labels.fresh(x.shape[-1])
        share_rows(walk, labels, (first,), vector(common, len(x.shape), -1))
        walk.statistic(number, first, common)
        note_attribute(walk, "normalized_shape", tuple(normalized_shape), common, place=0)
    for labels in passed.labels:
        (dim, *more) = support(labels) or (-1,)
        if dim >= first and not more:
            note_attribute(walk, "normalized_shape", tuple(normalized_shape), labels.flatten(), place=dim - first)
    passed = Value(x.shape, (*passed.labels, *within))
    scales = [parameter for parameter in affine[:2] if isinstance(parameter, Value)]
    result = Value(x.shape, _shifted(merge(walk, [passed, *scales])))
    return (result, Value(()), Value(())) if walk.operator.startswith("native_") else result


def _is_within(dims: tuple[int, ...], last: int) -> bool:
    """Whether channels lie along the last dimension and others: those of heads."""
    return len(dims) > 1 and dims[-1] == last


@rule("group_norm", kind="norm")
def group_norm(walk: Walk, x: Value, num_groups: int, *affine: Any) -> Value:
    """Statistics over blocks of channels: whole blocks go."""
    return _group_norm(walk, x, num_groups, affine[:2])


@rule("native_group_norm", kind="norm")
def native_group_norm(walk: Walk, x: Value, weight: Any, bias: Any, *sizes: int) -> Any:
    """Statistics over blocks of channels, with the arguments `(N, C, positions, num_groups, eps)`."""
    return _group_norm(walk, x, sizes[3], (weight, bias)), Value(()), Value(())


def _group_norm(walk: Walk, x: Value, num_groups: int, affine: Sequence[Any]) -> Value:
    unit = x.shape[1] // num_groups
    if unit == 1 and num_groups > 1 and any(len(support(labels)) > 1 for labels in x.labels):
        return _single_channels(walk, x, num_groups, affine)
    if num_groups == 1:
        x = summarise(walk, x, range(1, len(x.shape)), NORMALISED)
    else:
        maps = [walk.only_along(labels, 1) for labels in x.labels]
        x = Value(x.shape, tuple(_blocks(walk, labels, unit) for labels in maps if _is_channels(walk, labels)))
    channels = x.along(1)
    if channels is not None:
        note_attribute(walk, "num_channels", x.shape[1], channels)
        if num_groups > 1:
            note_attribute(walk, "num_groups", num_groups, channels, unit=unit)
    return _scaled(walk, x, affine)


def _single_channels(walk: Walk, x: Value, num_groups: int, affine: Sequence[Any]) -> Value:
    """Statistics over single channels, as in instance norm: channels pass that lie along examples as well.

    Shuffle attention lays groups of channels along the examples; all of them have the same scales.
    """
    x = Value(x.shape, tuple(labels for labels in x.labels if _is_channels(walk, labels, (0, 1))))
    result = _scaled(walk, x, affine)
    own = [along for parameter in affine if isinstance(parameter, Value) and (along := parameter.along(0)) is not None]
    rows = [labels.transpose(0, 1).reshape(x.shape[1], -1)[:, 0] for labels in x.labels if labels.shape[1] > 1]
    for channels in (own or rows)[:1]:
        note_attribute(walk, "num_channels", x.shape[1], channels)
        note_attribute(walk, "num_groups", num_groups, channels)
    return result


def _is_channels(walk: Walk, labels: Tensor, dims: tuple[int, ...] = (1,)) -> bool:
    """Whether labels change along these dimensions, the channels, only; all others are frozen."""
    if support(labels) != dims:
        walk.freeze(labels, NORMALISED)
    return support(labels) == dims


def _blocks(walk: Walk, labels: Tensor, unit: int) -> Tensor:
    """Join the channels of each block, which go together; a block with a fixed channel stays."""
    blocks = torch.where(labels == ZERO, FIXED, labels).reshape(-1, unit)
    walk.join(blocks[:, :1], blocks[:, 1:])
    return labels


def _scaled(walk: Walk, x: Value, parameters: Sequence[Any]) -> Value:
    """Scale and shift channels: the parameters `(C,)` have the channels of dimension 1."""
    ndim = len(x.shape)
    for parameter in parameters:
        if isinstance(parameter, Value):
            along = parameter.along(0)
            laid = () if along is None else (vector(along, ndim, 1),)
            shape = (1, parameter.shape[0], *(1,) * (ndim - 2))
            x = Value(x.shape, merge(walk, [x, Value(shape, laid)]))
    return Value(x.shape, _shifted(x.labels))


def _shifted(labels: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Labels after a norm: what was zero is no longer."""
    return tuple(torch.where(item == ZERO, FIXED, item) for item in labels)


def _record_norm(walk: Walk, x: Value, rest: tuple[Any, ...]) -> None:
    """Record a norm that is a tensor's only reader, and reads nothing else: it can correct the statistics before it.

    Norms are over dimension 1, which are the channels of convolutions, but not of linear layers along a sequence.
    """
    assert walk.node is not None
    source, *own = (item for item in walk.node.args[:5] if isinstance(item, Node))
    alone = all([user.target for user in item.users].count(walk.node.target) == 1 for item in own)
    row = find_rule(source.target)
    over_channels = len(x.shape) == 2 or (row is not None and row.kind == "conv")
    if len(source.users) == 1 and alone and over_channels:
        roles = ("weight", "bias", "running_mean", "running_var")
        named = zip(roles, map(walk.parameter_name, rest[:4]), strict=False)
        walk.norms[source.name] = {role: name for role, name in named if name is not None}


@rule("_weight_norm", "_weight_norm_interface", kind="other")
def weight_norm(walk: Walk, direction: Value, magnitude: Value, dim: int = 0) -> Any:
    """Weight norm, `g * v / norm(v)`: one norm per slice along `dim`, of what is kept along the other dimensions.

    If `dim` is -1, it is one norm of the whole weight.
    """
    dims = [other for other in range(len(direction.shape)) if other != dim]
    passed = summarise(walk, direction, dims, "is part of a norm")
    along, scale = (direction.along(dim), magnitude.along(dim)) if dim >= 0 else (None, None)
    if along is not None and scale is not None:
        walk.join(along, scale)
    result = Value(direction.shape, passed.labels)
    return (result, magnitude) if walk.operator == "_weight_norm_interface" else result


@rule("mv", "dot", "vdot", kind="other")
def product_with_vector(walk: Walk, a: Value, b: Value) -> Value:
    """Products of a spectral norm, `u^T W v` with vectors from power iterations: of the kept part of the weight."""
    number, dim = walk.call_number(), len(a.shape) - 1
    left, right = a.along(dim), b.along(0)
    if walk.node not in walk.derived or left is None or right is None:
        walk.freeze(a, "is part of a product with a vector")
        walk.freeze(b, "is part of a product with a vector")
    else:
        walk.statistic(number, dim, walk.join(left, right))
    return Value(walk.shape, tuple(labels.squeeze(dim) for labels in a.others(dim)))
