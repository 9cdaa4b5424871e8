"""Checks of a network, made before it is used."""

import torch
from torch import Tensor, nn

from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.networks.modes import eval_mode


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
    for name, tensor in tensors.items():
        broken = int((~torch.isfinite(tensor)).sum())
        if broken:
            raise UserError(
                f"{where} has {broken} NaN or infinite values in {name} ({tensor.numel()} elements): "
                "give weights of a training run that did not diverge"
            )


def check_num_classes(network: nn.Module, example: Tensor, num_classes: int) -> None:
    """Refuse a network that does not read these images, or does not tell this many classes apart.

    Args:
        network: The network, run once in evaluation mode and left as it was.
        example: Normalised images, shape `(N, C, H, W)`, on the network's device.
        num_classes: Classes of the data.

    Raises:
        UserError: The network refuses the images, or its output is not `(N, num_classes)`.
    """
    size = "x".join(map(str, example.shape[1:]))
    try:
        with eval_mode(network), torch.no_grad():
            output = network(example)
    except Exception as error:  # the user's own network may raise anything
        reason = one_line(error)
        raise UserError(f"the network refuses images of {size}: {reason}") from error
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(example):
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"the network returns {shape} for {len(example)} images of {size}: expected (images, classes)")
    if output.shape[1] != num_classes:
        raise UserError(
            f"the network has {output.shape[1]} classes, the data has {num_classes}: set `num_classes` of the network"
        )
