"""Checks of a network, made before it is used."""

import torch
from torch import Tensor, nn

from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.networks.modes import eval_mode
from gnnrl_lightning.trees import Tree, call, shapes


def check_finite(network: nn.Module) -> None:
    """Reject a network with NaN or infinite weights or statistics.

    Raises:
        UserError: A parameter or buffer has NaN or infinite elements; the message names the first one.
    """
    check_finite_tensors(network.state_dict(), "the network")


def check_finite_tensors(tensors: dict[str, Tensor], where: str) -> None:
    """Reject tensors with NaN or infinite elements.

    Args:
        tensors: Tensors of any type, by name.
        where: Name of their container, for the message.

    Raises:
        UserError: A tensor has such elements; the message names the first one and counts its elements.
    """
    if (found := not_finite(tensors)) is not None:
        raise UserError(f"{where} has {found}: give weights of a training run that did not diverge")


def not_finite(tensors: dict[str, Tensor]) -> str | None:
    """How many elements of the first tensor that has any are NaN or infinite, in words; None: all are finite."""
    for name, tensor in tensors.items():
        broken = int((~torch.isfinite(tensor)).sum())
        if broken:
            return f"{broken} NaN or infinite values in {name} ({tensor.numel()} elements)"
    return None


def check_runs(network: nn.Module, inputs: Tree) -> Tree:
    """The outputs of a network for some inputs, in evaluation mode; it is left as it was.

    Args:
        network: The network.
        inputs: Normalised inputs on the network's device, see `gnnrl_lightning.trees.call`.

    Raises:
        UserError: The network refuses the inputs.
    """
    try:
        with eval_mode(network), torch.no_grad():
            return call(network, inputs)
    except Exception as error:  # the user's own network may raise anything
        raise UserError(
            f"the network refuses inputs of {shapes(inputs)}: {one_line(error)}; change the inputs or its arguments"
        ) from error
