"""Propagate channel labels through an exported program, operator by operator.

An operator without a rule freezes its operands, as does an operator whose rule does not support its arguments.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Graph, Node
from torch.fx.node import map_aggregate

import gnnrl_lightning.tracing.rules  # noqa: F401  (registers the rules)
from gnnrl_lightning.errors import UserError, first_line
from gnnrl_lightning.tracing.labels import FIXED, Value, support, vector
from gnnrl_lightning.tracing.program.composites import enter_composites
from gnnrl_lightning.tracing.program.export import Calls
from gnnrl_lightning.tracing.program.sources import line_of, source_of
from gnnrl_lightning.tracing.records import Step
from gnnrl_lightning.tracing.repeats import end_repeats
from gnnrl_lightning.tracing.walk import Walk, find_rule, operator_name


def walk(program: ExportedProgram, network: nn.Module, calls: Calls) -> Walk:
    """Propagate labels through an exported program, see `export`.

    Args:
        program: The exported network.
        network: The network, for the values of its integer buffers.
        calls: The arguments of its modules.
    """
    state = Walk(network, calls)
    _pass(state, program)
    return state


def walk_training(state: Walk, program: ExportedProgram) -> None:
    """Propagate labels through the program of the network in training mode as well.

    Only the constraints on parameters are used: costs and feature maps are those of evaluation mode.
    """
    steps, results, contractions = list(state.steps), state.results, list(state.contractions)
    statistics, calls, scalings = list(state.statistics), list(state.calls_of_sizes), list(state.scalings)
    splits, norms, unlabelled = list(state.splits), dict(state.norms), list(state.unlabelled)
    _pass(state, program)
    evaluated = {contraction.weight for contraction in contractions}
    state.steps, state.results, state.statistics = steps, results, statistics
    state.calls_of_sizes, state.scalings, state.splits, state.norms = calls, scalings, splits, norms
    known = {name for name, *_ in unlabelled}
    state.unlabelled = [item for i, item in enumerate(state.unlabelled) if i < len(unlabelled) or item[0] not in known]
    state.training = [item for item in state.contractions[len(contractions) :] if item.weight not in evaluated]
    state.contractions = contractions


def _pass(state: Walk, program: ExportedProgram) -> None:
    values: dict[Node, Any] = {}
    enter_composites(program.graph, whole=lambda target: find_rule(target) is not None)
    unread = _unread(program.graph)
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs if hasattr(spec.arg, "name")}
    for node in program.graph.nodes:
        state.node, state.module, state.line = node, state.module_of(node), line_of(node)
        state.source = source_of(state.module, state.line)
        if node.op == "placeholder":
            state.operator = "input"
            values[node] = _placeholder(state, node, specs[node.name])
        elif node.op == "call_function":
            before, steps = state.labels.mark(), len(state.steps)
            values[node] = _call(state, node, values)
            if node in unread:
                state.labels.forget(before)
                del state.steps[steps:]
        elif node.op == "output":
            state.operator, state.source = "output", ""
            state.results = [argument.name for argument in node.all_input_nodes]
            for result in _tensors(node.args, values):
                state.freeze(result, "is an output of the network")
    state.node, state.derived, state.created, state.scores = None, set(), {}, {}  # the walk outlives the program


def _unread(graph: Graph) -> set[Node]:
    """Return the parts of tensors that nothing reads: the code takes their sizes, `self.weight[0].numel()`."""
    found: set[Node] = set()
    for node in reversed(graph.nodes):
        if node.op == "call_function" and found.issuperset(node.users):
            row = find_rule(node.target)
            if _only_checks(node) or operator_name(node.target) == "getitem" or (row and row.kind == "shape"):
                found.add(node)
    return found


def _placeholder(state: Walk, node: Node, spec: Any) -> Value | None:
    tensor = node.meta["val"]
    if not isinstance(tensor, Tensor):
        return None
    shape = tuple(tensor.shape)
    if spec.kind == InputKind.USER_INPUT:
        value = Value(shape, state.inputs.get(node.name, ()))
        if len(shape) > 2 and tensor.is_floating_point() and node.name not in state.inputs:
            state.module = node.name
            if shape[1] > 1:
                value = Value(shape, (vector(state.labels.fresh(shape[1]), len(shape), 1),))
                state.produce(value.labels[0].flatten())
                state.freeze(value, "is the input of the network")
            else:
                state.keep(1, "is the input of the network")
            state.inputs[node.name] = value.labels
        state.steps.append(Step(node.name, node.name, "input", "input", (), (), value, {}, _storage(node)))
        return value
    if spec.kind not in (InputKind.PARAMETER, InputKind.BUFFER):
        return Value(shape)
    state.derived.add(node)
    original = attrgetter(spec.target)(state.network)
    name = state.aliases.setdefault(id(original), spec.target)
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


def _call(state: Walk, node: Node, values: dict[Node, Any]) -> Any:
    target = node.target
    if node.all_input_nodes and all(source in state.derived for source in node.all_input_nodes):
        state.derived.add(node)
    if getattr(target, "__name__", "") == "getitem" and not isinstance(target, torch._ops.OpOverload):
        source, place = node.args
        container = values[source] if isinstance(source, Node) else None
        result = container[place] if isinstance(container, (tuple, list)) and isinstance(place, int) else container
        if isinstance(result, Value):
            _alias_step(state, node)
        return result
    if _only_checks(node):
        return None
    state.operator = operator_name(target)
    state.hyper = {}

    def resolve(argument: Any) -> Any:
        return values[argument] if isinstance(argument, Node) else argument

    row = find_rule(target)
    if row is None:
        result, kind = unknown(state, node, values, "flows through an operator without a rule"), "other"
    else:
        args = end_repeats(state, row, map_aggregate(node.args, resolve))
        kwargs = end_repeats(state, row, map_aggregate(node.kwargs, resolve))
        # A rule may meet unforeseen shapes and arguments. Its operands are then frozen, and `inspect` shows where and
        # why. These are the exceptions of torch and Python in such cases; any other exception is a bug in this package.
        costs = len(state.contractions)
        try:
            result, kind = row.apply(state, *args, **kwargs), row.kind
        except (NotImplementedError, RuntimeError, ValueError, IndexError, TypeError) as error:
            del state.contractions[costs:]  # `unknown` counts all of the operator's MACs
            reason = f"flows through an operator whose rule does not know these arguments ({first_line(error)})"
            result, kind = unknown(state, node, values, reason), "other"
    result = _plain(result)
    if _is_mutable(target) and isinstance(node.args[0], Node):
        values[node.args[0]] = result  # in place: from now on the operand is the result
    output = result[0] if isinstance(result, (tuple, list)) and result else result
    if isinstance(output, Value):
        inputs = tuple(argument.name for argument in node.all_input_nodes)
        read = (state.parameter_name(values.get(argument)) for argument in node.all_input_nodes)
        parameters = tuple(name for name in read if name is not None)
        made = inputs, parameters, output, state.hyper, _storage(node), state.line
        state.steps.append(Step(node.name, state.module, state.operator, kind, *made))
    return result


def _plain(result: Any) -> Any:
    """A rule's result without label tensors that say nothing: a slice has left none, or positions that are fixed."""
    if isinstance(result, (tuple, list)):
        return type(result)(map(_plain, result))
    if not isinstance(result, Value):
        return result
    kept = tuple(labels for labels in result.labels if support(labels) or bool((labels != FIXED).any()))
    return result if len(kept) == len(result.labels) else Value(result.shape, kept)


def _is_mutable(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _only_checks(node: Node) -> bool:
    """Whether an operator returns no tensor, and nothing reads what it returns: it is an assertion or a test."""
    if not isinstance(node.target, torch._ops.OpOverload) or node.target._schema.is_mutable or node.users:
        return False
    return not any("Tensor" in str(item.type) for item in node.target._schema.returns)


def _alias_step(state: Walk, node: Node) -> None:
    """Record `getitem` of the first output as an alias of the operator's output."""
    source = node.args[0]
    assert isinstance(source, Node)
    state.steps.append(Step(node.name, state.module, "getitem", "alias", (source.name,), (), Value(()), {}))


def _storage(node: Node) -> int:
    """Identity of the memory of a node's output, of the first one where there are several.

    Raises:
        UserError: It is made within `torch.vmap`, whose tensors have none.
    """
    value = node.meta["val"]
    try:
        return (value[0] if isinstance(value, (tuple, list)) else value).untyped_storage()._cdata
    except NotImplementedError as error:
        where = f" ({line})" if (line := line_of(node)) else ""
        raise UserError(
            f"torch.vmap cannot be traced{where}; use a loop, or operators with the batch dimension"
        ) from error


def unknown(state: Walk, node: Node, values: dict[Node, Any], reason: str) -> Any:
    """Freeze the operands of an operator without a rule that fits, and count its MACs as a constant."""
    for value in _tensors((node.args, node.kwargs), values):
        state.freeze(value, reason)
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
