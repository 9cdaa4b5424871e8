"""What a walk over the exported graph knows, and the table of rules that carry labels through its operators.

One rule an operator (see `rules/`) says what happens to the labels. The walk (see `carry`) collects what the rest of
the package needs: the labels of every parameter dimension, the contractions (what costs MACs, and what reads channels),
the gathers through index buffers, and the feature maps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.fx.node import map_aggregate
from torch.utils.flop_counter import FlopCounterMode

from gnnrl_lightning.registry import Registry
from gnnrl_lightning.tracing.labels import FIXED, Labels, Value


@dataclass(frozen=True)
class Contraction:
    """An operator that costs MACs: `macs = factor * product of the sizes of its labelled dimensions`.

    Attributes:
        node: Name of the operator in the exported graph.
        weight: Parameter that it reads, if it reads one as it is.
        factor: MACs for one image when every size in `sizes` is 1.
        sizes: Label vectors whose numbers of channels multiply the factor.
        reads: Labels `(C_in,)` or, for grouped convolutions, `(groups, C_in / groups)` that it contracts.
        writes: Labels `(C_out,)` of its output channels.
        groups: Number of groups of a convolution.
        bias: Bias that is added to the outputs, if it is a parameter as it is.
        transposed: Whether the weight's first dimension is the one that reads.
    """

    node: str
    weight: str | None
    factor: int
    sizes: tuple[Tensor, ...]
    reads: Tensor | None = None
    writes: Tensor | None = None
    groups: int = 1
    bias: str | None = None
    transposed: bool = False


@dataclass(frozen=True)
class Gather:
    """A selection of channels through an integer buffer: `out[j] = x[index[j]]`."""

    buffer: str
    reads: Tensor
    """Labels `(n,)` of the channels of x, ZERO where a channel is always zero."""


@dataclass(frozen=True)
class Step:
    """One operator of the walk with the tensors that it reads and writes, for the state graph.

    `storage` is the identity of the memory of the output: views, and what is written in place, share it.
    """

    node: str
    module: str
    operator: str
    kind: str
    inputs: tuple[str, ...]
    parameters: tuple[str, ...]
    output: Value
    hyper: dict[str, tuple[int, ...]]
    storage: int = 0


Rule = Callable[..., Any]


@dataclass(frozen=True)
class RuleRow:
    """How labels pass through an operator, and what kind of operator it is in the state graph."""

    apply: Rule
    kind: str


def _as_rule(given: Any) -> RuleRow:
    if not isinstance(given, RuleRow):
        raise TypeError(f"expected a RuleRow, not a {type(given).__name__}")
    return given


RULES: Registry[RuleRow] = Registry("operator rule", _as_rule)
"""Operator name (the name of the ATen operator without overload) -> rule."""


def rule(*operators: str, kind: str) -> Callable[[Rule], Rule]:
    """Register a rule `(walk, *args, **kwargs) -> Value`, called with the operator's arguments, tensors as `Value`.

    Args:
        operators: Names of ATen operators without overload and, of those that write in place, without underscore.
        kind: Their kind in the state graph.

    Raises:
        UserError: One of them has a rule already.
    """

    def register(function: Rule) -> Rule:
        for operator in operators:
            RULES.register(operator, RuleRow(function, kind))
        return function

    return register


@dataclass
class Walk:
    """What is known so far, and the operator at hand.

    Attributes:
        network: The network itself.
        labels: The labels, and what is joined, tied and frozen.
        parameters: Parameters and buffers: name -> value whose labels are those of its dimensions.
        aliases: Identity of a tensor -> the name under which it was first seen.
        contractions: Operators that cost MACs.
        training: Those that only training mode has.
        gathers: Selections of channels through buffers.
        steps: Operators in order, for the state graph.
        results: Nodes whose outputs the network returns.
        produced: Channels that operators make, with the modules that name them.
        consumed: Labels of weight dimensions along which channels are read.
        trainable: Names of parameters, buffers left out.
        joined_parameters: Labels that operators on parameters alone have joined, a pair each.
        derived: Nodes that are computed from parameters alone.
        unlabelled: Channels that must stay and have no labels, each as the fields of a `FrozenGroup`.
        norms: Node -> parameters of the batch norm that alone reads it.
        names: Identity of a value -> name of the parameter that it is.
        hyper: Kernel, stride and groups of the operator at hand.
        node: The operator at hand.
        operator: Its name.
        source: Where it stands in the user's code.
        module: The module that calls it.
    """

    network: nn.Module
    labels: Labels = field(default_factory=Labels)
    parameters: dict[str, Value] = field(default_factory=dict)
    aliases: dict[int, str] = field(default_factory=dict)
    contractions: list[Contraction] = field(default_factory=list)
    training: list[Contraction] = field(default_factory=list)
    gathers: list[Gather] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    produced: list[tuple[str, Tensor]] = field(default_factory=list)
    consumed: list[Tensor] = field(default_factory=list)
    trainable: list[str] = field(default_factory=list)
    joined_parameters: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    derived: set[Node] = field(default_factory=set)
    unlabelled: list[tuple[str, int, str, str, str]] = field(default_factory=list)
    norms: dict[str, dict[str, str]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    hyper: dict[str, tuple[int, ...]] = field(default_factory=dict)
    node: Node | None = None
    operator: str = ""
    source: str = ""
    module: str = ""

    def parameter_name(self, value: Any) -> str | None:
        """The name of the parameter or buffer that this value is, untouched; None for any other value."""
        return self.names.get(id(value)) if isinstance(value, Value) else None

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        """See `Labels.join`; the operator at hand is the one that joins."""
        if self.node in self.derived:
            self.joined_parameters.append((a, b))
        return self.labels.join(a, b, self.operator, self.source)

    def freeze(self, value: Value | Tensor | None, reason: str) -> None:
        """State that every label of a value must stay, because of the operator at hand."""
        for labels in (value,) if isinstance(value, Tensor) else value.labels if value is not None else ():
            self.labels.freeze(labels, self.operator, self.source, reason)

    def keep(self, channels: int, reason: str) -> None:
        """State that the operator at hand has channels without labels, which must stay."""
        self.unlabelled.append((self.module, channels, self.operator, reason, self.source))

    def tie(self, labels: Tensor) -> None:
        """See `Labels.tie`."""
        self.labels.tie(labels, self.operator, self.source)

    def produce(self, labels: Tensor) -> None:
        """State that the operator at hand makes these channels (its module names them)."""
        self.produced.append((self.module or (self.node.name if self.node else ""), labels))

    def consumed_labels(self) -> set[int]:
        """Labels of the parameter dimensions along which channels are read, sums of parameters included."""
        joined: dict[int, set[int]] = {}
        for a, b in self.joined_parameters:
            for one, other in zip(*(side.flatten().tolist() for side in torch.broadcast_tensors(a, b)), strict=True):
                joined.setdefault(one, set()).add(other)
                joined.setdefault(other, set()).add(one)
        found = {label for labels in self.consumed for label in labels.flatten().tolist()}
        waiting = list(found)
        while waiting:
            fresh = joined.get(waiting.pop(), set()) - found
            found |= fresh
            waiting.extend(fresh)
        return found

    @property
    def contracted(self) -> set[str]:
        """Nodes that cost MACs."""
        return {contraction.node for contraction in self.contractions}

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the output of the operator at hand."""
        return tuple(self.value_of_output().shape)

    def value_of_output(self) -> Tensor:
        """The fake output tensor of the operator at hand (the first one, where there are several)."""
        assert self.node is not None
        value = self.node.meta["val"]
        return value[0] if isinstance(value, (tuple, list)) else value

    def macs(self) -> int:
        """MACs of the operator at hand for the whole example batch, measured with `FlopCounterMode` on meta tensors."""
        assert self.node is not None

        def meta(argument: Any) -> Any:
            if isinstance(argument, Node):
                return _meta(argument.meta["val"])
            return argument

        args = map_aggregate(self.node.args, meta)
        kwargs = map_aggregate(self.node.kwargs, meta)
        with FlopCounterMode(display=False) as counter:
            self.node.target(*args, **kwargs)  # type: ignore[operator]
        return counter.get_total_flops() // 2

    def contract(self, sizes: tuple[Tensor, ...], **more: Any) -> None:
        """Record the cost of the operator at hand, see `Contraction`."""
        factor, rest = divmod(self.macs(), math.prod(len(size) for size in sizes))
        if rest:
            raise AssertionError(f"{self.operator}: its MACs are not a product of its sizes")
        assert self.node is not None
        self.contractions.append(Contraction(self.node.name, more.pop("weight", None), factor, sizes, **more))


def _meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    if isinstance(value, (tuple, list)):
        return type(value)(_meta(item) for item in value)
    return value


def find_rule(target: Any) -> RuleRow | None:
    """The rule of an operator: its own row, or the row of all pointwise operators."""
    name = operator_name(target)
    if name in RULES or not isinstance(target, torch._ops.OpOverload):
        return RULES.get(name)
    functional = getattr(torch.ops.aten, name, None) if target._schema.is_mutable else None
    overloads = [getattr(functional, overload) for overload in functional.overloads()] if functional else [target]
    return RULES["pointwise"] if any(torch.Tag.pointwise in overload.tags for overload in overloads) else None


def operator_name(target: Any) -> str:
    """`aten.conv2d.default` -> `conv2d`, `aten.relu_.default` -> `relu`."""
    if isinstance(target, torch._ops.OpOverload):
        name = target._schema.name.split("::")[-1]
        return name.rstrip("_") if target._schema.is_mutable else name
    return getattr(target, "__name__", str(target))


def fixed_labels(value: Value) -> Tensor:
    """The only label tensor of a value, or FIXED."""
    return value.labels[0] if value.labels else torch.full((1,) * len(value.shape), FIXED)
