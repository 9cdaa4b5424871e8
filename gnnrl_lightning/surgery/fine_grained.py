"""Fine-grained pruning: magnitude masks inside linear layers, beside channel pruning.

A mask is a parametrization: `weight = original * mask`, so that training keeps the zeros, export and copies work, and
both tensors are in the state dict. `bake_masks` makes them permanent: the weight is a parameter of its usual name
again. Masked weights are zeros in dense tensors: they save neither MACs nor memory, and reports count them apart.

Not wired into the job yet: these functions are for your own code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gnnrl_lightning.errors import UserError


class Mask(nn.Module):
    """Multiplies a weight with zeros and ones.

    Args:
        mask: Of the weight's shape; False where the weight is held at zero.
    """

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask: Tensor
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        """The masked weight."""
        return weight * self.mask


@dataclass(frozen=True)
class Sparsity:
    """What is gone, structural and masked apart.

    Attributes:
        dense_params: Parameters of the dense network.
        params: Parameters of this network, masked ones included.
        masked: Parameters of this network that a mask holds at zero.
    """

    dense_params: int
    params: int
    masked: int

    @property
    def structural(self) -> float:
        """Share of the dense parameters that surgery removed."""
        return 1 - self.params / self.dense_params

    @property
    def fine_grained(self) -> float:
        """Share of the remaining parameters that masks hold at zero."""
        return self.masked / self.params


def linear_layers(network: nn.Module) -> list[tuple[str, nn.Linear]]:
    """The linear layers by path, each once."""
    return [(path, module) for path, module in network.named_modules() if isinstance(module, nn.Linear)]


def mask_smallest(network: nn.Module, amount: float, scope: str = "layer") -> None:
    """Mask the smallest weights of the linear layers, in place.

    Args:
        network: Usually a network that surgery has made.
        amount: Share of the weights to mask, from 0 to below 1; rounded down to whole weights.
        scope: "layer": this share of each layer; "network": of all linear layers together, smallest first.

    Raises:
        UserError: The amount or the scope is out of range, or there is no linear layer, or masks are on already.
    """
    if not 0 <= amount < 1:
        raise UserError(f"amount is {amount}: expected a share from 0 to below 1")
    if scope not in ("layer", "network"):
        raise UserError(f"scope is {scope!r}: expected layer or network")
    layers = linear_layers(network)
    if not layers:
        raise UserError(f"{type(network).__name__} has no linear layers to mask")
    for path, layer in layers:
        if parametrize.is_parametrized(layer, "weight"):
            raise UserError(f"{path} has a parametrized weight already: bake_masks first, if it is a mask")
    sizes = [layer.weight.detach().abs() for _, layer in layers]
    if scope == "network":
        stays = _largest(torch.cat([size.flatten() for size in sizes]), amount)
        masks = [
            part.reshape(size.shape) for part, size in zip(stays.split([s.numel() for s in sizes]), sizes, strict=True)
        ]
    else:
        masks = [_largest(size, amount) for size in sizes]
    for (_, layer), mask in zip(layers, masks, strict=True):
        parametrize.register_parametrization(layer, "weight", Mask(mask.clone()))


def _largest(sizes: Tensor, amount: float) -> Tensor:
    """False for the smallest `amount` of all elements."""
    stays = torch.ones(sizes.numel(), dtype=torch.bool, device=sizes.device)
    stays[sizes.flatten().argsort(stable=True)[: int(amount * sizes.numel())]] = False
    return stays.reshape(sizes.shape)


def bake_masks(network: nn.Module) -> None:
    """Make the masks permanent, in place: parameters and state dict have their usual names again."""
    for _, layer in linear_layers(network):
        if _mask(layer) is not None:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def sparsity(network: nn.Module, dense: nn.Module) -> Sparsity:
    """Count what surgery and masks have taken; without a mask the zeros of a linear layer count as masked.

    Args:
        network: The pruned network.
        dense: The dense network.
    """
    masked = 0
    for _, layer in linear_layers(network):
        mask = _mask(layer)
        masked += int((layer.weight == 0).sum()) if mask is None else int((~mask).sum())
    before, after = (sum(parameter.numel() for parameter in net.parameters()) for net in (dense, network))
    return Sparsity(before, after, masked)


def _mask(layer: nn.Linear) -> Tensor | None:
    """The mask of a layer's weight."""
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    chain = layer.get_submodule("parametrizations.weight")
    return next((item.mask for item in chain.children() if isinstance(item, Mask)), None)
