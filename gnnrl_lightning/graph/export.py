"""From a network and an example to an exported, functionalised program."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from gnnrl_lightning.errors import UserError

Inputs = tuple[Any, ...]


def as_inputs(example_inputs: Tensor | Inputs) -> Inputs:
    """The positional arguments of `forward`."""
    inputs = tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    if not any(isinstance(item, Tensor) and item.dim() for item in inputs):
        raise UserError("example_inputs has no tensor with a batch dimension: give the network's input, batch first")
    return inputs


def one_image(inputs: Inputs) -> Inputs:
    """The same inputs with the first image of the batch alone."""
    images = next(len(item) for item in inputs if isinstance(item, Tensor) and item.dim())

    def first(item: Any) -> Any:
        return item[:1] if isinstance(item, Tensor) and item.dim() and len(item) == images else item

    return tuple(first(item) for item in inputs)


def two_images(inputs: Inputs) -> Inputs:
    """The same inputs with the only image of the batch twice: batch statistics need more than one value."""

    def twice(item: Any) -> Any:
        return torch.cat([item, item]) if isinstance(item, Tensor) and item.dim() and len(item) == 1 else item

    return tuple(twice(item) for item in inputs)


def unused_parameters(program: ExportedProgram) -> bool:
    """Whether any parameter of the network has no reader in its program."""
    names = program.graph_signature.inputs_to_parameters
    return any(node.op == "placeholder" and node.name in names and not node.users for node in program.graph.nodes)


def shared_copy(network: nn.Module) -> nn.Module:
    """A copy of the module structure in evaluation mode that shares the tensors: nothing done to it shows outside."""
    memo = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, memo).eval()


def run(network: nn.Module, inputs: Inputs) -> Any:
    """One forward pass without gradients."""
    with torch.no_grad():
        return network(*inputs)


def export(network: nn.Module, inputs: Inputs) -> ExportedProgram:
    """Export a network whose forward pass is known to run, without in-place writes through views in its graph.

    In-place operators on whole tensors (`relu_`, `add_`) stay: the walk takes them for what they compute. Only where a
    view is written into is the graph functionalised, which takes longer than the export itself.

    Args:
        network: A network in evaluation mode that may be changed (see `shared_copy`).
        inputs: Positional arguments of `forward`.

    Raises:
        UserError: `torch.export` refuses the network.
    """
    try:
        with torch.no_grad():
            program = torch.export.export(network, inputs, strict=False)
            return program.run_decompositions({}) if _writes_through_views(program) else program
    except Exception as error:
        raise UserError(f"{type(network).__name__} cannot be traced: torch.export says: {first_line(error)}") from error


def _writes_through_views(program: ExportedProgram) -> bool:
    """Whether an in-place operator changes a tensor that is, or has, a view."""
    for node in program.graph.nodes:
        if not (isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable):
            continue
        for argument, formal in zip(node.args, node.target._schema.arguments, strict=False):
            if not (formal.alias_info and formal.alias_info.is_write and isinstance(argument, Node)):
                continue
            if not _is_private(argument) or any(_is_view(user) for user in argument.users if user is not node):
                return True
    return False


def _is_private(node: Node) -> bool:
    """Whether nothing else sees what is written into a tensor: it is no view, or the only reader of what it views."""
    while _is_view(node):
        base = node.args[0]
        if not isinstance(base, Node) or len(base.users) > 1 or base.op != "call_function":
            return False
        node = base
    return True


def _is_view(node: Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return node.op == "call_function"
    schema = node.target._schema
    return not schema.is_mutable and any(item.alias_info is not None for item in schema.returns)


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
