"""Checks of a network, made before it is used."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.module_state import state_tensors
from gnnrl_lightning.networks.modes import eval_mode
from gnnrl_lightning.trees import Tree, call, shapes, tensors


def check_stored(network: nn.Module) -> None:
    """Reject a network whose weights are not there, or not in float32.

    Raises:
        UserError: A parameter is on the meta device, or has another precision; the message names the first one.
    """
    for name, parameter in network.named_parameters():
        if parameter.is_meta:
            raise UserError(f"{name} is on the meta device, where tensors have no numbers: give it its weights")
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            kind = str(parameter.dtype).removeprefix("torch.")
            raise UserError(
                f"{name} is stored in {kind}: expected float32, so call .float() on the network; trainings and scoring "
                "have a precision of their own, finetuning.precision and scoring.precision"
            )


def check_finite(network: nn.Module) -> None:
    """Reject a network with NaN or infinite weights or statistics.

    Raises:
        UserError: A parameter or buffer has NaN or infinite elements; the message names the first one.
    """
    check_finite_tensors(state_tensors(network), "the network")


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
        UserError: The network refuses the inputs, or gives other outputs for the same ones.
    """
    try:
        with eval_mode(network), torch.no_grad():
            outputs, again = call(network, inputs), call(network, inputs)
    except Exception as error:  # the user's own network may raise anything
        passed = ", which have the names in the dictionary" if isinstance(inputs, Mapping) else ""
        raise UserError(
            f"the network refuses inputs of {shapes(inputs)}: {one_line(error)}; change the inputs or its arguments"
            f"{passed}"
        ) from error
    if not all(map(_equal, tensors(outputs), tensors(again))):
        raise UserError(
            "the network gives other outputs for the same inputs, in evaluation mode: expected nothing random there, "
            "and no state that its calls change"
        )
    return outputs


def _equal(first: Tensor, second: Tensor) -> bool:
    """Whether two outputs are the same; GPUs may round in another order."""
    if first.shape != second.shape:
        return False
    given = (each.to(torch.promote_types(each.dtype, torch.float32)) for each in (first, second))
    return torch.allclose(*given, rtol=1e-3, atol=1e-4, equal_nan=True)
