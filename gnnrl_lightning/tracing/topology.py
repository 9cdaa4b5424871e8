"""The operators of a traced network and the feature maps between them, for the state graph."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gnnrl_lightning.tracing.labels import FIXED, Value
from gnnrl_lightning.tracing.walk import Walk

KINDS = ("conv", "linear", "norm", "activation", "pool", "add", "mul", "cat", "attention", "shape", "other")
"""Kinds of operators; each rule of the walk has one."""


@dataclass(frozen=True)
class FeatureMap:
    """A tensor between operators.

    Attributes:
        name: Name in the exported graph.
        shape: Dense shape for one example, without the batch.
        positions: Number of elements per channel.
        base: Index of the first feature map in the same memory: its own, unless it is a view or was written in place.
    """

    name: str
    shape: tuple[int, ...]
    positions: int
    base: int


@dataclass(frozen=True)
class Operator:
    """An operator that computes a feature map from others.

    Attributes:
        name: Path of the module that called it, with its position in the exported graph.
        kind: One of `KINDS`.
        inputs: Indices of the feature maps that it reads.
        output: Index of the feature map that it computes.
        kernel: Kernel size of a convolution; ones otherwise.
        stride: Stride of a convolution; ones otherwise.
        groups: Groups of a convolution.
    """

    name: str
    kind: str
    inputs: tuple[int, ...]
    output: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    groups: int = 1


@dataclass(frozen=True)
class Stage:
    """A chain of operators that is one edge of the state graph: a convolution with its batch norm and activation.

    Attributes:
        members: Indices of the operators, in order.
        kinds: Their kinds, in order.
        inputs: Indices of the feature maps that the first operator reads.
        output: Index of the feature map that the last operator computes.
        kernel: Kernel size of the first operator.
        stride: Stride of the first operator.
        groups: Groups of the first operator.
    """

    members: tuple[int, ...]
    kinds: tuple[str, ...]
    inputs: tuple[int, ...]
    output: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    groups: int = 1


FUSED = ("norm", "activation")
"""Kinds of operators that join the stage of the operator before them if nothing else reads its output."""


def stages(operators: Sequence[Operator]) -> tuple[Stage, ...]:
    """Merge operators into stages: every batch norm and activation joins the operator whose only reader it is.

    Args:
        operators: Operators in order of computation; no operator computes the network's inputs.
    """
    readers = Counter(source for operator in operators for source in set(operator.inputs))
    made_by: dict[int, int] = {}
    chains: list[list[int]] = []
    for number, operator in enumerate(operators):
        chain = made_by.get(operator.inputs[0]) if len(operator.inputs) == 1 else None
        if chain is not None and operator.kind in FUSED and readers[operator.inputs[0]] == 1:
            chains[chain].append(number)
        else:
            chain = len(chains)
            chains.append([number])
        made_by[operator.output] = chain
    found = []
    for chain in chains:
        first = operators[chain[0]]
        kinds = tuple(operators[number].kind for number in chain)
        output = operators[chain[-1]].output
        found.append(Stage(tuple(chain), kinds, first.inputs, output, first.kernel, first.stride, first.groups))
    return tuple(found)


@dataclass(frozen=True)
class Topology:
    """The operators of a network and what is between them.

    Attributes:
        operators: Operators in order.
        feature_maps: The tensors between them.
        channel_labels: Labels of the channels of each feature map.
        values: Shape, batch included, and all labels of each feature map.
        index: Operator of each graph node and parameter.
        outputs: The feature maps that the network returns.
    """

    operators: tuple[Operator, ...]
    feature_maps: tuple[FeatureMap, ...]
    channel_labels: tuple[Tensor, ...]
    values: tuple[Value, ...]
    index: dict[str, int]
    outputs: tuple[int, ...]


def build_topology(walk: Walk, prunable: Callable[[Tensor], bool]) -> Topology:
    """Collect the operators and feature maps of a walk; parameters and constants are not feature maps.

    Args:
        walk: The walk.
        prunable: Predicate of labels `(n,)`: whether any of their channels can be pruned.
    """
    maps: dict[str, int] = {}
    operators, feature_maps, channel_labels, values = [], [], [], []
    memory: dict[int, int] = {}
    index: dict[str, int] = {}
    for step in walk.steps:
        if step.kind == "alias":
            if step.inputs[0] in maps:
                maps[step.node] = maps[step.inputs[0]]
            continue
        reads = tuple(maps[name] for name in step.inputs if name in maps)
        for name in step.parameters:
            index.setdefault(name, len(operators))
        if step.kind != "input":
            if not reads and step.node not in walk.contracted:
                continue  # a constant
            index[step.node] = len(operators)
        maps[step.node] = len(feature_maps)
        labels, positions = _channels(walk, step.output, prunable)
        channel_labels.append(labels)
        values.append(step.output)
        base = memory.setdefault(step.storage, len(feature_maps))
        feature_maps.append(FeatureMap(step.node, step.output.shape[1:], positions, base))
        if step.kind != "input":
            operators.append(
                Operator(
                    f"{step.module}:{step.node}",
                    step.kind,
                    reads,
                    maps[step.node],
                    _pair(step.hyper.get("kernel", (1, 1))),
                    _pair(step.hyper.get("stride", (1, 1))),
                    step.hyper.get("groups", (1,))[0],
                )
            )
    outputs = tuple(maps[name] for name in walk.results if name in maps)
    return Topology(tuple(operators), tuple(feature_maps), tuple(channel_labels), tuple(values), index, outputs)


def _channels(walk: Walk, value: Value, prunable: Callable[[Tensor], bool]) -> tuple[Tensor, int]:
    """Return the channel labels of a feature map `(C,)`, and its number of elements per channel and example.

    If there are several label tensors (tokens and channels), the first prunable one is used, else the longest.
    """
    elements = math.prod(value.shape[1:])
    given = [labels.flatten() for labels in value.labels]
    candidates = [labels for labels in given if not walk.is_repeat(labels) or prunable(labels)]
    if candidates:
        labels = next(filter(prunable, candidates), max(candidates, key=len))
    else:
        labels = torch.full((value.shape[1] if len(value.shape) > 1 else 1,), FIXED)
    return labels, max(elements // max(len(labels), 1), 1)


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    return (sizes[0], sizes[-1]) if sizes else (1, 1)
