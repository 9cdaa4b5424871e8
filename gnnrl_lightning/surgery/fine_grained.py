"""Fine-grained pruning: magnitude masks for the weights of linear layers, in addition to channel pruning.

A mask is a parametrization, `weight = original * mask`: training preserves the zeros, export and copies work, and both
tensors are in the state dict. `bake_masks` makes masks permanent: the weight is an ordinary parameter again. Masked
weights are zeros in dense tensors: they save neither MACs nor memory, and reports count them separately.

The job does not use masks yet: these functions are for your own code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gnnrl_lightning.checks import one_of
from gnnrl_lightning.errors import UserError


class Mask(nn.Module):
    """Multiplication of a weight by zeros and ones.

    Args:
        mask: Boolean tensor of the weight's shape; False where the weight is zero.
    """

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask: Tensor
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the masked weight."""
        return weight * self.mask


@dataclass(frozen=True)
class Sparsity:
    """Sparsity of a pruned network, split into removed and masked parameters.

    Attributes:
        dense_params: Number of parameters of the dense network.
        params: Number of parameters of the pruned network, including masked ones.
        masked: Number of parameters of the pruned network that are masked to zero.
    """

    dense_params: int
    params: int
    masked: int

    @property
    def structural(self) -> float:
        """Fraction of the dense parameters that surgery removed."""
        return 1 - self.params / self.dense_params

    @property
    def fine_grained(self) -> float:
        """Fraction of the remaining parameters that are masked to zero."""
        return self.masked / self.params


def linear_layers(network: nn.Module) -> list[tuple[str, nn.Linear]]:
    """Return the linear layers with their paths, each once."""
    return [(path, module) for path, module in network.named_modules() if isinstance(module, nn.Linear)]


def mask_smallest(network: nn.Module, amount: float, scope: str = "layer") -> None:
    """Mask the smallest weights of the linear layers, in place.

    Args:
        network: The network, usually after surgery.
        amount: Fraction of the weights to mask, in [0, 1); rounded down to whole weights.
        scope: "layer" masks this fraction of each layer; "network" masks it over all linear layers together.

    Raises:
        UserError: The amount or the scope is invalid, there is no linear layer, or a weight is parametrized already.
    """
    if not 0 <= amount < 1:
        raise UserError(f"amount is {amount}: expected a fraction from 0 to below 1")
    one_of("scope", scope, ("layer", "network"))
    layers = linear_layers(network)
    if not layers:
        raise UserError(f"{type(network).__name__} has no linear layers: expected at least one to mask")
    for path, layer in layers:
        if parametrize.is_parametrized(layer, "weight"):
            raise UserError(f"{path} has a parametrized weight already: call bake_masks first if it is a mask")
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
    """Return a mask that is False for the smallest fraction `amount` of all elements."""
    stays = torch.ones(sizes.numel(), dtype=torch.bool, device=sizes.device)
    stays[sizes.flatten().argsort(stable=True)[: int(amount * sizes.numel())]] = False
    return stays.reshape(sizes.shape)


def bake_masks(network: nn.Module) -> None:
    """Make the masks permanent, in place; parameters and state dict have their usual names again."""
    for _, layer in linear_layers(network):
        if _mask(layer) is not None:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def sparsity(network: nn.Module, dense: nn.Module) -> Sparsity:
    """Count removed and masked parameters; zeros of a linear layer without a mask count as masked.

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
    """Return the mask of a layer's weight, or None."""
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    chain = layer.get_submodule("parametrizations.weight")
    return next((item.mask for item in chain.children() if isinstance(item, Mask)), None)
