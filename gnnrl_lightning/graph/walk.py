"""The walk over the exported graph that carries channel labels from operator to operator.

One rule a operator (see `rules/`) says what happens to the labels; an operator without a rule freezes what flows
through it. The walk collects what the rest of the package needs: the labels of every parameter dimension, the
contractions (what costs MACs, and what reads channels), the gathers through index buffers, and the feature maps.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node
from torch.fx.node import map_aggregate
from torch.utils.flop_counter import FlopCounterMode

from gnnrl_lightning.graph.labels import FIXED, Labels, Value, vector


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
    """One operator of the walk with the tensors that it reads and writes, for the state graph."""

    node: str
    module: str
    operator: str
    kind: str
    inputs: tuple[str, ...]
    parameters: tuple[str, ...]
    output: Value
    hyper: dict[str, tuple[int, ...]]


Rule = Callable[..., Any]


@dataclass(frozen=True)
class RuleRow:
    """How labels pass through an operator, and what kind of operator it is in the state graph."""

    apply: Rule
    kind: str


RULES: dict[str, RuleRow] = {}
"""Operator name (the name of the ATen operator without overload) -> rule."""


def rule(*operators: str, kind: str) -> Callable[[Rule], Rule]:
    """Register a rule `(walk, *args, **kwargs) -> Value`, called with the operator's arguments, tensors as `Value`."""

    def register(function: Rule) -> Rule:
        for operator in operators:
            RULES[operator] = RuleRow(function, kind)
        return function

    return register


@dataclass
class Walk:
    """What is known so far, and the operator at hand."""

    network: nn.Module
    labels: Labels = field(default_factory=Labels)
    parameters: dict[str, Value] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    contractions: list[Contraction] = field(default_factory=list)
    training: list[Contraction] = field(default_factory=list)
    gathers: list[Gather] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    produced: list[tuple[str, Tensor]] = field(default_factory=list)
    consumed: list[Tensor] = field(default_factory=list)
    trainable: list[str] = field(default_factory=list)
    kin: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    derived: set[Node] = field(default_factory=set)
    rigid: list[tuple[str, int, str, str]] = field(default_factory=list)
    norms: dict[str, dict[str, str]] = field(default_factory=dict)
    hyper: dict[str, tuple[int, ...]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
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
            self.kin.append((a, b))
        return self.labels.join(a, b, self.operator, self.source)

    def freeze(self, value: Value | Tensor | None, reason: str) -> None:
        """State that every label of a value must stay, because of the operator at hand."""
        for labels in (value,) if isinstance(value, Tensor) else value.labels if value is not None else ():
            self.labels.freeze(labels, self.operator, self.source, reason)

    def tie(self, labels: Tensor) -> None:
        """See `Labels.tie`."""
        self.labels.tie(labels, self.operator, self.source)

    def produce(self, labels: Tensor) -> None:
        """State that the operator at hand makes these channels (its module names them)."""
        self.produced.append((self.module or (self.node.name if self.node else ""), labels))

    def consumed_labels(self) -> set[int]:
        """Labels of the parameter dimensions along which channels are read, sums of parameters included."""
        kin: dict[int, set[int]] = {}
        for a, b in self.kin:
            for one, other in zip(*(side.flatten().tolist() for side in torch.broadcast_tensors(a, b)), strict=True):
                kin.setdefault(one, set()).add(other)
                kin.setdefault(other, set()).add(one)
        found = {label for labels in self.consumed for label in labels.flatten().tolist()}
        waiting = list(found)
        while waiting:
            fresh = kin.get(waiting.pop(), set()) - found
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


def walk(program: ExportedProgram, network: nn.Module) -> Walk:
    """Carry labels through an exported program, see `export`.

    Args:
        program: The exported network.
        network: The network itself: the values of its integer buffers are read.
    """
    state = Walk(network)
    _pass(state, program)
    return state


def walk_training(state: Walk, program: ExportedProgram) -> None:
    """Carry labels through the program of the network in training mode as well.

    Only what ties the parameters is taken from it: costs and feature maps are those of the evaluation mode.
    """
    steps, contractions = list(state.steps), list(state.contractions)
    _pass(state, program)
    evaluated = {contraction.weight for contraction in contractions}
    state.steps = steps
    state.training = [item for item in state.contractions[len(contractions) :] if item.weight not in evaluated]
    state.contractions = contractions


def _pass(state: Walk, program: ExportedProgram) -> None:
    values: dict[Node, Any] = {}
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs if hasattr(spec.arg, "name")}
    for node in program.graph.nodes:
        state.node, state.module, state.source = node, _module(node), _source(node)
        if node.op == "placeholder":
            state.operator = "input"
            values[node] = _placeholder(state, node, specs[node.name])
        elif node.op == "call_function":
            values[node] = _call(state, node, values)
        elif node.op == "output":
            state.operator, state.source = "output", ""
            for result in _tensors(node.args, values):
                state.freeze(result, "is an output of the network")


def _placeholder(state: Walk, node: Node, spec: Any) -> Value | None:
    tensor = node.meta["val"]
    if not isinstance(tensor, Tensor):
        return None
    shape = tuple(tensor.shape)
    if spec.kind == InputKind.USER_INPUT:
        value = Value(shape)
        if len(shape) > 2 and tensor.is_floating_point():
            state.module = node.name
            if shape[1] > 1:
                value = Value(shape, (vector(state.labels.fresh(shape[1]), len(shape), 1),))
                state.produce(value.labels[0].flatten())
                state.freeze(value, "is the input of the network")
            else:
                state.rigid.append((node.name, 1, "input", "is the input of the network"))
        state.steps.append(Step(node.name, node.name, "input", "input", (), (), value, {}))
        return value
    if spec.kind not in (InputKind.PARAMETER, InputKind.BUFFER):
        return Value(shape)
    state.derived.add(node)
    original = _resolve(state.network, spec.target)
    name = state.aliases.setdefault(f"{id(original)}", spec.target)
    if name in state.parameters:
        return state.parameters[name]
    vectors = []
    for dim, size in enumerate(shape):
        if size > 1:
            labels = state.labels.fresh(size)
            state.labels.tag(labels)
            vectors.append(vector(labels, len(shape), dim))
    value = Value(shape, tuple(vectors))
    state.parameters[name] = value
    if spec.kind == InputKind.PARAMETER:
        state.trainable.append(name)
    state.names[id(value)] = name
    return value


def _resolve(network: nn.Module, target: str) -> Tensor:
    path, _, name = target.rpartition(".")
    return getattr(network.get_submodule(path), name)


def _call(state: Walk, node: Node, values: dict[Node, Any]) -> Any:
    target = node.target
    if getattr(target, "__name__", "") == "getitem" and not isinstance(target, torch._ops.OpOverload):
        source, place = node.args
        container = values[source] if isinstance(source, Node) else None
        result = container[place] if isinstance(container, (tuple, list)) and isinstance(place, int) else container
        if isinstance(result, Value):
            _alias_step(state, node)
        return result
    state.operator = operator_name(target)
    state.hyper = {}
    if node.all_input_nodes and all(source in state.derived for source in node.all_input_nodes):
        state.derived.add(node)

    def resolve(argument: Any) -> Any:
        return values[argument] if isinstance(argument, Node) else argument

    row = find_rule(target)
    if row is None:
        result, kind = unknown(state, node, values), "other"
    else:
        args = map_aggregate(node.args, resolve)
        kwargs = map_aggregate(node.kwargs, resolve)
        try:
            result, kind = row.apply(state, *args, **kwargs), row.kind
        except (NotImplementedError, RuntimeError, ValueError, IndexError, TypeError) as error:
            state.rigid.append((state.module, 0, state.operator, f"its rule failed: {error}"))
            result, kind = unknown(state, node, values), "other"
    if isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable and isinstance(node.args[0], Node):
        values[node.args[0]] = result  # in place: from here on the operand is the result
    output = result[0] if isinstance(result, (tuple, list)) and result else result
    if isinstance(output, Value):
        inputs = tuple(argument.name for argument in node.all_input_nodes)
        read = (state.parameter_name(values.get(argument)) for argument in node.all_input_nodes)
        parameters = tuple(name for name in read if name is not None)
        state.steps.append(Step(node.name, state.module, state.operator, kind, inputs, parameters, output, state.hyper))
    return result


def _alias_step(state: Walk, node: Node) -> None:
    """`getitem` of the first output is the operator's own output under another name."""
    source = node.args[0]
    assert isinstance(source, Node)
    state.steps.append(Step(node.name, state.module, "getitem", "alias", (source.name,), (), Value(()), {}))


def find_rule(target: Any) -> RuleRow | None:
    """The rule of an operator: its own row, or the row of all pointwise operators."""
    name = operator_name(target)
    if name in RULES or not isinstance(target, torch._ops.OpOverload):
        return RULES.get(name)
    functional = getattr(torch.ops.aten, name, None) if target._schema.is_mutable else None
    overloads = [getattr(functional, overload) for overload in functional.overloads()] if functional else [target]
    return RULES["pointwise"] if any(torch.Tag.pointwise in overload.tags for overload in overloads) else None


def unknown(state: Walk, node: Node, values: dict[Node, Any]) -> Any:
    """Freeze what flows through an operator without a rule; its MACs are a constant."""
    for value in _tensors((node.args, node.kwargs), values):
        state.freeze(value, "flows through an operator without a rule")
    if isinstance(node.target, torch._ops.OpOverload) and state.macs():
        state.contract(())

    def fixed(item: Any) -> Any:
        if isinstance(item, Tensor):
            return Value(tuple(item.shape))
        return type(item)(fixed(part) for part in item) if isinstance(item, (tuple, list)) else item

    return fixed(node.meta.get("val"))


def _tensors(arguments: Any, values: dict[Node, Any]) -> list[Value]:
    found: list[Value] = []

    def visit(argument: Any) -> Any:
        value = values.get(argument) if isinstance(argument, Node) else None
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, Value):
                found.append(item)
        return argument

    map_aggregate(arguments, visit)
    return found


def operator_name(target: Any) -> str:
    """`aten.conv2d.default` -> `conv2d`, `aten.relu_.default` -> `relu`."""
    if isinstance(target, torch._ops.OpOverload):
        name = target._schema.name.split("::")[-1]
        return name.rstrip("_") if target._schema.is_mutable else name
    return getattr(target, "__name__", str(target))


def _module(node: Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return next(reversed(stack.values()))[0] if stack else ""


def _source(node: Node) -> str:
    """Module, file and line of the user's code that called the operator."""
    frames = re.findall(r'File "([^"]+)", line (\d+), in [^\n]+\n\s*([^\n]*)', node.meta.get("stack_trace") or "")
    where = f"{frames[-1][0].rsplit('/', 1)[-1]}:{frames[-1][1]}: {frames[-1][2].strip()}" if frames else ""
    module = _module(node)
    return f"{module} ({where})" if module and where else module or where


def fixed_labels(value: Value) -> Tensor:
    """The only label tensor of a value, or FIXED."""
    return value.labels[0] if value.labels else torch.full((1,) * len(value.shape), FIXED)
