"""Export of a network, with an example input, to a functionalised program."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from gnnrl_lightning.errors import UserError, first_line
from gnnrl_lightning.tracing.writes import replace_slice_writes
from gnnrl_lightning.trees import call, map_tensors, tensors

Inputs = tuple[Any, ...] | dict[str, Any]
"""Positional or keyword arguments of `forward`; tensors may be nested in tuples, lists and dictionaries."""


def as_inputs(example_inputs: Any) -> Inputs:
    """Return the example as the arguments of `forward`.

    Raises:
        UserError: No input is a tensor with a batch dimension.
    """
    inputs = example_inputs if isinstance(example_inputs, (tuple, list, dict)) else (example_inputs,)
    inputs = tuple(inputs) if isinstance(inputs, list) else inputs
    if not any(tensor.dim() for tensor in tensors(inputs)):
        raise UserError("example_inputs has no tensor with a batch dimension: give the network's input, batch first")
    return inputs


def one_example(inputs: Inputs) -> Inputs:
    """Return the inputs with only the first example of the batch."""
    examples = next(len(tensor) for tensor in tensors(inputs) if tensor.dim())
    return map_tensors(lambda tensor: tensor[:1] if tensor.dim() and len(tensor) == examples else tensor, inputs)


def two_examples(inputs: Inputs) -> Inputs:
    """Return the inputs with a single example duplicated: batch statistics need more than one value."""
    return map_tensors(
        lambda tensor: torch.cat([tensor, tensor]) if tensor.dim() and len(tensor) == 1 else tensor, inputs
    )


def arguments(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword arguments."""
    return ((), inputs) if isinstance(inputs, dict) else (inputs, {})


def unused_parameters(program: ExportedProgram) -> bool:
    """Whether any parameter of the network is unused in its program."""
    names = program.graph_signature.inputs_to_parameters
    return any(node.op == "placeholder" and node.name in names and not node.users for node in program.graph.nodes)


def shared_copy(network: nn.Module) -> nn.Module:
    """Copy the module structure, in evaluation mode, but share the tensors; the original modules remain unchanged."""
    memo = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, memo).eval()


def run(network: nn.Module, inputs: Inputs) -> Any:
    """Run one forward pass without gradients."""
    with torch.no_grad():
        return call(network, inputs)


def export(network: nn.Module, inputs: Inputs) -> ExportedProgram:
    """Export a network as a graph without in-place writes through views.

    In-place operators on whole tensors (`relu_`, `add_`) remain: the walk handles them like the out-of-place ones.
    Writes into slices are replaced; if there are writes into other views, the program is functionalised.

    Args:
        network: A network in evaluation mode whose forward pass runs and that may be modified (see `shared_copy`).
        inputs: Arguments of `forward`.

    Raises:
        UserError: `torch.export` fails.
    """
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # A recurrent layer also lists its weights; the network here is a copy, and keeps its parameters.
            warnings.filterwarnings("ignore", r"(?s)The tensor attributes .*_flat_weights", UserWarning)
            program = torch.export.export(network, *arguments(inputs), strict=False)
            return program if replace_slice_writes(program.graph) else program.run_decompositions({})
    except Exception as error:
        raise UserError(f"{type(network).__name__} cannot be traced: torch.export says: {first_line(error)}") from error
