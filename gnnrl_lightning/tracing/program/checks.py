"""Checks of what is given to `trace`, before anything is exported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from gnnrl_lightning.errors import UserError, first_line
from gnnrl_lightning.tracing.program.copies import shared_copy
from gnnrl_lightning.tracing.program.export import Inputs, run
from gnnrl_lightning.trees import tensors

QUANTISED = tuple(f"torch.ao.nn.{kind}" for kind in ("qat", "quantized", "intrinsic.qat", "intrinsic.quantized"))
"""Packages of layers of networks that are quantised, or prepared for it."""

SUMS = ("FloatFunctional", "FXFloatFunctional")
"""Modules of these packages that compute in float: sums and products that a preparation is to find."""


def check_network(network: Any) -> None:
    """Refuse what is not a network that can be traced.

    Raises:
        UserError: It is a class, a state dictionary or a function, has no parameters or uninitialised ones, is
            compiled by TorchScript, or is quantised.
    """
    if isinstance(network, type):
        raise UserError(f"network is the class {network.__name__}: give an instance of it, {network.__name__}(...)")
    if not isinstance(network, nn.Module):
        kind = "a dictionary of weights" if isinstance(network, Mapping) else f"a {type(network).__name__}"
        do = "build the network and load them into it" if isinstance(network, Mapping) else "wrap it in one"
        raise UserError(f"network is {kind}: expected a torch.nn.Module; {do}")
    for name, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and (not name or next(module.parameters(), None) is not None):
            what = f"its module {name}" if name else "it"
            raise UserError(
                f"{type(network).__name__} cannot be traced: {what} is compiled by TorchScript; give the Python network"
            )
    kinds = {type(module).__module__ for module in network.modules() if type(module).__name__ not in SUMS}
    if quantised := sorted(kind for kind in kinds if kind.startswith(QUANTISED)):
        package = quantised[0].partition(".modules")[0]
        raise UserError(
            f"{type(network).__name__} cannot be pruned: it has layers of {package}, whose weights are rounded or "
            "packed; give the network as it is before it is prepared for quantisation"
        )
    parameters = list(network.parameters())
    if not parameters:
        raise UserError(f"{type(network).__name__} has no parameters: expected some to prune")
    if any(is_lazy(parameter) for parameter in parameters):
        raise UserError(f"{type(network).__name__} has lazy layers without weights: run it once on an example first")


def as_inputs(example_inputs: Any) -> Inputs:
    """Return the example as the arguments of `forward`.

    Raises:
        UserError: No input is a tensor with a batch dimension.
    """
    inputs = example_inputs if isinstance(example_inputs, (tuple, list, dict)) else (example_inputs,)
    inputs = tuple(inputs) if isinstance(inputs, list) else inputs
    if not any(tensor.dim() for tensor in tensors(inputs)):
        raise UserError(
            f"example_inputs has no tensor with a batch dimension, it is {_given(example_inputs)}: "
            "give the network's input, batch first, such as torch.zeros(1, 3, 32, 32)"
        )
    return inputs


def _given(example: Any) -> str:
    if isinstance(example, (tuple, list)) and example and all(isinstance(item, int) for item in example):
        return f"the shape {tuple(example)}"
    return "None" if example is None else f"a {type(example).__name__}"


def check_takes(network: nn.Module, inputs: Inputs) -> None:
    """Run the network on the example.

    Raises:
        UserError: The network refuses it.
    """
    try:
        run(shared_copy(network), inputs)
    except Exception as error:  # the network's own code may raise anything
        shapes = ", ".join(str(tuple(item.shape)) for item in tensors(inputs))
        message = f"{type(network).__name__} refuses an input of shape {shapes}: {first_line(error)}"
        if isinstance(inputs, dict) and "unexpected keyword" in message:
            message += "; a dictionary has arguments by name: give ({...},) if it is one argument"
        raise UserError(message) from error


def check_takes_one(network: nn.Module, inputs: Inputs, given: Inputs) -> None:
    """Run the network on one example.

    Args:
        network: The network.
        inputs: The first example.
        given: All examples.

    Raises:
        UserError: The network refuses it, or takes all examples together alone.
    """
    try:
        check_takes(network, inputs)
    except UserError as error:
        check_takes(network, given)  # raises a clearer error if the network refuses these, too
        raise UserError(
            f"{error}; it takes all of example_inputs together, but not the first alone: expected independent examples "
            "along the first dimension; add a dimension of one example, such as a graph for its nodes"
        ) from error
