"""Layers that contract channels: convolutions, linear layers, embeddings.

The labels of the input channels are joined with those of the weight's input dimension; the output has the labels of
the weight's output dimension.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from gnnrl_lightning.tracing.given_sizes import note_sizes, note_zeros
from gnnrl_lightning.tracing.labels import ZERO, Value, is_zero, support, vector
from gnnrl_lightning.tracing.rows import holds_groups, note_blocks
from gnnrl_lightning.tracing.walk import Walk, operator_name, rule

PARTS = ("chunk", "split", "split_with_sizes", "unbind", "getitem", "slice", "narrow", "select")
MOVES = (*PARTS, "view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "unsqueeze", "squeeze")
"""Operators that take parts of a tensor, or move its elements."""

SLIDES = "lies along the positions over which a convolution slides"
"""Why channels stay that a convolution does not contract."""


def inputs_along(walk: Walk, x: Value, dim: int) -> Tensor | None:
    """Return the channel labels of x along `dim`; labels that also change along other dimensions are joined there.

    A convolution reads a channel at all positions: where a view has made positions of channels (a linear layer before
    a convolution), all those of one channel go together. Zeros, such as the first state of a recurrent network, adopt
    the channels of the layer.
    """
    dim %= len(x.shape)
    along = x.along(dim)
    if along is None and any(is_zero(labels) for labels in x.labels):
        return torch.full((x.shape[dim],), ZERO)
    for labels in x.labels:
        if labels.shape[dim] > 1 and support(labels) != (dim,):
            if along is not None:
                walk.freeze(labels, "is contracted together with other dimensions")
                continue
            along = walk.only_along(labels, dim).flatten()
    return along


def _contract_weight(walk: Walk, inputs: Tensor | None, weight: Tensor | None, ndim: int, dim: int) -> Tensor | None:
    """Join channels along `dim` of an input with the weight's input dimension, and mark them as read."""
    if inputs is None or weight is None:
        for lonely in (inputs, weight):
            walk.freeze(lonely, "is contracted with values that cannot be pruned")
        return inputs if weight is None else weight
    joined = walk.join(inputs, weight)
    walk.consumed.append(weight)
    if bool((inputs == ZERO).all()):
        note_zeros(walk, vector(joined, ndim, dim))
    return joined


def _read(walk: Walk, x: Value, dim: int, weight: Value, along: Tensor | None) -> Tensor | None:
    """Contract the channels of x along `dim` with a weight's input dimension; the weight may be computed."""
    dim, number = dim % len(x.shape), walk.call_number()
    inputs = inputs_along(walk, x, dim)
    reads = _contract_weight(walk, inputs, along, len(x.shape), dim)
    assert walk.node is not None
    made = walk.node.args[1]
    if walk.parameter_name(weight) is None and isinstance(made, Node) and reads is not None:
        if inputs is not None and along is not None and not _is_part(made):
            walk.computed.append(walk.consumed.pop())
            # As a label tensor: code may lay the examples along the channels, and have a kernel for each of them.
            walk.statistic(number, dim, vector(inputs, len(x.shape), dim))
    return reads


def _is_part(made: Node) -> bool:
    """Whether a weight is a part of a parameter: a mask of the parameter is one of the weight."""
    while made.op == "call_function" and operator_name(made.target) in MOVES and isinstance(made.args[0], Node):
        made = made.args[0]
    return made.op == "placeholder"


def _outputs(walk: Walk, weight: Value, dim: int, bias: Value | None) -> Tensor | None:
    """Return the labels of the output channels: the weight's output dimension, joined with the bias."""
    outputs = weight.along(dim)
    if bias is not None:
        along = bias.along(0)
        if outputs is not None and along is not None:
            walk.join(outputs, along)
        else:
            walk.freeze(along, "belongs to outputs that cannot be pruned")
            walk.freeze(outputs, "has a bias that cannot be pruned")
    if outputs is not None:
        walk.produce(outputs)
    else:
        reason = "is a single channel" if weight.shape[dim] == 1 else "is made by a weight that cannot be pruned"
        walk.keep(weight.shape[dim], reason)
    return outputs


@rule("linear", kind="linear")
def linear(walk: Walk, x: Value, weight: Value, bias: Value | None = None) -> Value:
    """`x (..., in) @ weight (out, in).T + bias`."""
    ndim = len(x.shape)
    reads = _read(walk, x, -1, weight, weight.along(1))
    writes = _outputs(walk, weight, 0, bias)
    others = tuple(labels for labels in x.others(-1) if len(support(labels)) == 1)
    for labels in x.others(-1):
        if len(support(labels)) > 1:
            walk.freeze(labels, "changes along several dimensions of a matrix product")
    sizes = tuple(size for size in (reads, writes, *(labels.flatten() for labels in others)) if size is not None)
    walk.contract(sizes, weight=walk.parameter_name(weight), reads=reads, writes=writes, bias=walk.parameter_name(bias))
    made = () if writes is None else (vector(writes, ndim, -1),)
    return Value(walk.shape, (*others, *made))


@rule("conv1d", "conv2d", "conv3d", kind="conv")
def convolution(
    walk: Walk, x: Value, weight: Value, bias: Value | None = None, stride=1, padding=0, dilation=1, groups=1
) -> Value:
    """Convolution with weight `(out, in / groups, *kernel)`."""
    return _convolution(walk, x, weight, bias, stride, groups, transposed=False)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", kind="conv")
def transposed_convolution(
    walk: Walk,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride=1,
    padding=0,
    output_padding=0,
    groups=1,
    *_,
) -> Value:
    """Transposed convolution with weight `(in, out / groups, *kernel)`."""
    return _convolution(walk, x, weight, bias, stride, groups, transposed=True)


@rule("convolution", kind="conv")
def any_convolution(
    walk: Walk, x: Value, weight: Value, bias, stride, padding, dilation, transposed, _, groups
) -> Value:
    """`aten.convolution`, the general form of both."""
    return _convolution(walk, x, weight, bias, stride, groups, transposed=transposed)


def _convolution(
    walk: Walk, x: Value, weight: Value, bias: Value | None, stride, groups: int, *, transposed: bool
) -> Value:
    spatial = len(weight.shape) - 2
    dim = len(x.shape) - spatial - 1
    stride = (stride,) if isinstance(stride, int) else tuple(stride)
    walk.hyper = {"kernel": weight.shape[2:], "stride": stride, "groups": (groups,)}
    out_dim, in_dim = (1, 0) if transposed else (0, 1)
    name = walk.parameter_name(weight)
    if not transposed and (slid := _slid_over(walk, x, dim, weight, stride)) is not None:
        walk.statistic(walk.call_number(), support(slid)[0], slid.flatten())
        _outputs(walk, weight, 0, bias)
        walk.contract((slid.flatten(),), weight=name, bias=walk.parameter_name(bias))
        return Value(walk.shape, (slid,))
    others = _positions(walk, x, dim, weight, stride)
    if groups == 1:
        reads = _read(walk, x, dim, weight, weight.along(in_dim))
        writes = _outputs(walk, weight, out_dim, bias)
        sizes = tuple(size for size in (reads, writes, *(labels.flatten() for labels in others)) if size is not None)
        walk.contract(
            sizes, weight=name, reads=reads, writes=writes, bias=walk.parameter_name(bias), transposed=transposed
        )
        return Value(walk.shape, (*others, *_made(walk, x, dim, writes).labels))
    for labels in others:
        walk.freeze(labels, SLIDES)
    number = walk.call_number()
    inputs = inputs_along(walk, x, dim)
    if inputs is not None and _is_one_kernel(walk, weight, groups):
        walk.contract((inputs,))
        return _filtered(walk, x, dim, inputs, number)
    depthwise = weight.shape[1] == 1 and weight.along(0) is not None and (name is not None or weight.shape[0] == groups)
    computed = name is None and not depthwise
    if (
        inputs is None
        or (transposed and weight.shape[:2] != (groups, 1))
        or (computed and (transposed or weight.along(0) is None or not holds_groups(walk, walk.module, groups)))
    ):
        reason = "is part of a grouped convolution whose channels cannot be told apart"
        for value in (x, weight, bias):
            walk.freeze(value, reason)
        walk.keep(walk.shape[dim], reason)
        writes = None
        walk.contract(())
    elif depthwise:
        writes = _depthwise(walk, inputs, weight, bias, groups)
        walk.contract((writes,), weight=name, writes=writes, groups=groups, bias=walk.parameter_name(bias))
        if len(writes) == groups:
            return _filtered(walk, x, dim, writes, number)
    else:
        writes = _grouped(walk, name, inputs, weight, bias, groups)
    return _made(walk, x, dim, writes)


def _positions(walk: Walk, x: Value, dim: int, weight: Value, stride: tuple[int, ...]) -> tuple[Tensor, ...]:
    """The channels that lie along positions, of which a convolution reads one at a time: `Conv1d(tokens, tokens, 1)`.

    Those of any other convolution are frozen.
    """
    single = {*weight.shape[2:], *stride} == {1} and walk.shape[dim + 1 :] == x.shape[dim + 1 :]
    passing = []
    for labels in x.others(dim):
        if single and len(support(labels)) == 1:
            passing.append(labels)
        else:
            walk.freeze(labels, SLIDES)
    return tuple(passing)


def _slid_over(walk: Walk, x: Value, dim: int, weight: Value, stride: tuple[int, ...]) -> Tensor | None:
    """The channels over which a convolution to one map slides, as efficient channel attention does.

    It gives a value for each of them, computed from its neighbours: of those that are kept.
    """
    if weight.shape[0] != 1 or len(x.labels) != 1 or len(support(x.labels[0])) != 1:
        return None
    along = support(x.labels[0])[0]
    steps = stride[min(along - dim - 1, len(stride) - 1)]
    return x.labels[0] if along > dim and steps == 1 and walk.shape[along] == x.shape[along] else None


def _made(walk: Walk, x: Value, dim: int, writes: Tensor | None) -> Value:
    made = () if writes is None else (vector(writes, len(x.shape), dim),)
    return Value(walk.shape, made)


def _filtered(walk: Walk, x: Value, dim: int, writes: Tensor, number: int) -> Value:
    """Return the output of a depthwise convolution; the code gives it as many groups as there are channels."""
    made = _made(walk, x, dim, writes)
    note_sizes(walk, made.labels[0], [len(writes) if d == dim else -1 for d in range(len(x.shape))], number)
    return made


def _is_one_kernel(walk: Walk, weight: Value, groups: int) -> bool:
    """Whether a depthwise convolution has the same kernel, which the code repeats, for all channels."""
    assert walk.node is not None
    made = walk.node.args[1]
    bias = walk.node.args[2] if len(walk.node.args) > 2 else None
    if weight.along(0) is not None or bias is not None or not isinstance(made, Node):
        return False
    if tuple(weight.shape[:2]) != (groups, 1) or not made.all_input_nodes:
        return False
    given = made.all_input_nodes[0].meta["val"].shape
    repeated = operator_name(made.target) in ("expand", "repeat", "expand_as", "broadcast_to", "tile")
    return repeated and (len(given) < len(weight.shape) or given[0] == 1)


def _depthwise(walk: Walk, inputs: Tensor, weight: Value, bias: Value | None, groups: int) -> Tensor:
    """Depthwise: one filter (or `multiplier` filters) per input channel; output channels are the input channels."""
    outputs = weight.along(0)
    assert outputs is not None
    writes = walk.join(outputs, inputs.repeat_interleave(weight.shape[0] // groups))
    if bias is not None and (along := bias.along(0)) is not None:
        walk.join(outputs, along)
    return writes


def _grouped(
    walk: Walk, name: str | None, inputs: Tensor, weight: Value, bias: Value | None, groups: int
) -> Tensor | None:
    """Grouped: all blocks keep equal counts, each with its own indices, or go as a whole, see `sizes.blocks`.

    If the weight is computed, blocks go as a whole.
    """
    blocks = inputs.reshape(groups, -1)
    writes = _outputs(walk, weight, 0, bias)
    if writes is None:
        walk.tie(blocks)
    else:
        note_blocks(walk, name, blocks, writes.reshape(groups, -1))
    if name is None:
        assert writes is not None
        walk.contract((writes,), writes=writes, bias=walk.parameter_name(bias))
        return writes
    walk.consumed.append(inputs)
    # A block's input count is the size of one row: all rows keep the same number.
    sizes = (blocks[0],) if writes is None else (blocks[0], writes)
    walk.contract(sizes, weight=name, reads=blocks, writes=writes, groups=groups, bias=walk.parameter_name(bias))
    return writes


@rule("bilinear", kind="linear")
def bilinear(walk: Walk, x: Value, y: Value, weight: Value, bias: Value | None = None) -> Value:
    """`x^T W_o y + b_o` for each output o, with weight `(out, in1, in2)`. It counts no MACs."""
    walk.contract(())
    for place, value in ((1, x), (2, y)):
        _contract_weight(walk, inputs_along(walk, value, -1), weight.along(place), len(value.shape), -1)
        for labels in value.others(-1):
            walk.freeze(labels, "changes along several dimensions of a matrix product")
    writes = _outputs(walk, weight, 0, bias)
    return Value(walk.shape, () if writes is None else (vector(writes, len(walk.shape), -1),))


@rule("embedding", kind="other")
def embedding(walk: Walk, weight: Value, indices: Value, *_, **__) -> Value:
    """Embedding lookup: the columns of the table are channels, the rows are frozen."""
    walk.freeze(weight.along(0), "is a row of an embedding")
    if (columns := weight.along(1)) is None:
        return Value(walk.shape)
    walk.produce(columns)
    return Value(walk.shape, (vector(columns, len(walk.shape), -1),))


@rule("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only", kind="other")
def embedding_bag(walk: Walk, weight: Value, indices: Value, *rest: Any, **more: Any) -> tuple[Value, ...]:
    """Sums, means or maxima of rows of a table, as in `embedding`, perhaps weighed; and three further outputs."""
    for weights in (item for item in (*rest, *more.values()) if isinstance(item, Value)):
        walk.freeze(weights, "weighs rows of an embedding")
    return embedding(walk, weight, indices), Value(()), Value(()), Value(())
