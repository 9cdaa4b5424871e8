"""Recurrent layers: the hidden size of all layers and directions is one width, each with its own units.

A unit is a row in each gate of both weights of its layer, a column of the recurrent weight, and an input of the next
layer. The weights of a layer are `(gates * hidden, in)` and `(gates * hidden, hidden)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.tracing.given_sizes import note_attribute, note_zeros
from gnnrl_lightning.tracing.labels import Value, support, vector
from gnnrl_lightning.tracing.walk import Contraction, Walk, rule


@rule("lstm", kind="linear")
def lstm(walk: Walk, x: Value, states: Any, weights: Any, biased: Any, layers: Any, *rest: Any) -> Any:
    """LSTM of several layers, one or two directions: `(output, h, c)`."""
    directions, each = 1 + bool(rest[2]), 4 if biased else 2
    if isinstance(states, Value) or len(weights) != layers * directions * each:
        return _frozen(walk, (x, states, weights, biased), "is part of a packed sequence or of projected states")
    if _is_single(weights):
        return _frozen(walk, (x, states, weights), SINGLE)
    out, state = _layers(walk, x, states, [weights[i : i + each] for i in range(0, len(weights), each)], directions)
    return out, state, state


@rule("gru", "rnn_tanh", "rnn_relu", kind="linear")
def gru(walk: Walk, x: Value, state: Any, weights: Any, biased: Any, layers: Any, *rest: Any) -> Any:
    """GRU and simple recurrent networks of several layers, one or two directions: `(output, h)`."""
    if isinstance(weights, Value):
        return _frozen(walk, (x, state, weights, biased), "is part of a packed sequence")
    if _is_single(weights):
        return _frozen(walk, (x, state, weights), SINGLE)
    directions, each = 1 + bool(rest[2]), 4 if biased else 2
    return _layers(walk, x, [state], [weights[i : i + each] for i in range(0, len(weights), each)], directions)


SINGLE = "is part of a recurrent layer with a single unit"
"""Reason to freeze: a dimension of one element has no label."""


def _is_single(weights: Sequence[Value | None]) -> bool:
    """Whether the recurrent weight `(gates * hidden, hidden)` is that of a single unit."""
    recurrent = weights[1]
    assert recurrent is not None
    return recurrent.shape[1] == 1


def _frozen(walk: Walk, operands: Any, reason: str) -> Any:
    """Freeze all operands, and keep the outputs: their units have no labels here."""
    assert walk.node is not None
    for operand in operands:
        for value in operand if isinstance(operand, (tuple, list)) else (operand,):
            if isinstance(value, Value):
                walk.freeze(value, reason)
    walk.keep(walk.shape[-1], reason)
    walk.contract(())
    made = walk.node.meta["val"]
    return Value(tuple(made.shape)) if isinstance(made, Tensor) else tuple(Value(tuple(each.shape)) for each in made)


@rule("lstm_cell", kind="linear")
def lstm_cell(walk: Walk, x: Value, states: list[Value], *weights: Value | None) -> tuple[Value, Value]:
    """One step of an LSTM: `(h, c)`."""
    if _is_single(weights):
        return _frozen(walk, (x, states, weights), SINGLE)
    h = _cell(walk, x, states, weights)
    return h, h


@rule("gru_cell", "rnn_tanh_cell", "rnn_relu_cell", kind="linear")
def gru_cell(walk: Walk, x: Value, state: Value, *weights: Value | None) -> Value:
    """One step of a GRU or of a simple recurrent network."""
    if _is_single(weights):
        return _frozen(walk, (x, state, weights), SINGLE)
    return _cell(walk, x, [state], weights)


def _layers(
    walk: Walk, x: Value, states: Sequence[Value], weights: Sequence[Sequence[Value]], directions: int
) -> tuple[Value, Value]:
    """Return the output `(..., directions * hidden)` and the last states `(layers * directions, batch, hidden)`.

    Args:
        walk: The walk.
        x: The input.
        states: First states, each `(layers * directions, batch, hidden)`.
        weights: Weights and biases of each layer and direction.
        directions: Number of directions.
    """
    inputs, places = _channels(walk, x), math.prod(x.shape[:-1])
    units: list[Tensor] = []
    for first in range(0, len(weights), directions):
        read = torch.cat(units[-directions:]) if units else inputs
        units += [_units(walk, read, part, places) for part in weights[first : first + directions]]
    _hold(walk, x, inputs, units[0])
    if len(units) > 1:
        walk.tie(torch.stack(units))
    _check_macs(walk)
    stacked = torch.stack(units)[:, None]
    _join_states(walk, states, stacked)
    made = torch.cat(units[-directions:])
    return Value(walk.shape, (vector(made, len(x.shape), -1),)), Value(tuple(states[0].shape), (stacked,))


def _cell(walk: Walk, x: Value, states: Sequence[Value], weights: Sequence[Value | None]) -> Value:
    inputs = _channels(walk, x)
    units = _units(walk, inputs, [weight for weight in weights if weight is not None], math.prod(x.shape[:-1]))
    _hold(walk, x, inputs, units)
    _check_macs(walk)
    made = vector(units, len(walk.shape), -1)
    _join_states(walk, states, made)
    return Value(walk.shape, (made,))


def _channels(walk: Walk, x: Value) -> Tensor | None:
    """Return the labels of the last dimension; those of others are frozen."""
    x = Value(x.shape, tuple(walk.only_along(labels, len(x.shape) - 1) for labels in x.labels))
    for labels in x.labels:
        if support(labels) != (len(x.shape) - 1,):
            walk.freeze(labels, "changes along the steps of a recurrent layer")
    return x.along(-1)


def _units(walk: Walk, inputs: Tensor | None, weights: Sequence[Value], places: int) -> Tensor:
    """Join the rows and columns of the units of one layer and direction; return their labels `(hidden,)`.

    Args:
        walk: The walk.
        inputs: Labels of the inputs, or None if they are fixed.
        weights: Input weight, recurrent weight, and biases if there are any.
        places: Steps times examples.
    """
    read, units = weights[0].along(1), weights[1].along(1)
    assert units is not None  # several
    for weight in weights:
        rows = weight.along(0)
        assert rows is not None
        walk.join(rows.reshape(-1, len(units)), units)
        walk.produce(rows)
    rows = weights[0].along(0)
    assert rows is not None and walk.node is not None
    for labels in (inputs, read):
        if inputs is None or read is None:
            walk.freeze(labels, "is contracted with values that cannot be pruned")
    if inputs is not None and read is not None:
        walk.join(inputs, read)
        walk.consumed.append(read)
    walk.consumed.append(units)
    sizes, factor = ((rows,), places * weights[0].shape[1]) if read is None else ((rows, read), places)
    walk.contractions.append(Contraction(walk.node.name, None, factor, sizes, reads=read, writes=rows))
    walk.contractions.append(Contraction(walk.node.name, None, places, (rows, units), reads=units, writes=rows))
    return units


def _hold(walk: Walk, x: Value, inputs: Tensor | None, units: Tensor) -> None:
    """Record the sizes that the module holds."""
    note_attribute(walk, "hidden_size", len(units), units)
    if inputs is not None:
        note_attribute(walk, "input_size", x.shape[-1], inputs)


def _check_macs(walk: Walk) -> None:
    """Compare the MACs of the products with those of the operator."""
    assert walk.node is not None
    mine = [item for item in walk.contractions if item.node == walk.node.name]
    counted = sum(item.factor * math.prod(len(size) for size in item.sizes) for item in mine)
    if counted != walk.macs():
        raise ValueError(f"{counted} MACs where {walk.macs()} are counted")


def _join_states(walk: Walk, states: Sequence[Value], made: Tensor) -> None:
    """Join the channels of given first states, in the shape of `made`, with the units; zeros adopt them."""
    for state in states:
        (labels,) = state.labels if len(state.labels) == 1 else (torch.full((1,) * made.dim(), -1),)
        walk.join(labels, made)
    note_zeros(walk, made)
