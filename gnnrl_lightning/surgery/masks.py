"""Fine-grained pruning: the smallest weights of linear layers are zero, in addition to channel pruning.

The share of a layer's weights that stays is an action like the width of a channel group: a graph that was traced with
`masks` has a group for each masked weight, of `gnnrl_lightning.cost.products.PARTS` equal parts. Masked weights are
zeros in dense tensors: they save neither MACs nor latency, and `nonzero` counts them, not `params`.

While a network trains, a mask is a parametrization, `weight = original * mask`, which keeps the zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gnnrl_lightning.checks import shown
from gnnrl_lightning.cost.products import zeros
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.tracing.keep import find_named

OPTION = "groups.masks"


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


def find_weights(network: nn.Module, layers: Sequence[str | type[nn.Module]]) -> tuple[str, ...]:
    """Names of the weights of linear layers, each once, in the order of the network.

    Args:
        network: The network.
        layers: Names of modules (with all their submodules), globs over these names, or module types or their import
            paths (`torch.nn.Linear`).

    Raises:
        UserError: An item matches no linear layer, or a layer shares its weight with another module.
    """
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise UserError(f"{OPTION} is {shown(layers)}: expected a list of names, globs or module types")
    linear = {f"{path}.weight": module for path, module in network.named_modules() if isinstance(module, nn.Linear)}
    chosen = dict[str, None]()
    for given in layers:
        modules = find_named(network, [], given, OPTION)
        found = [name for name in linear if any(f"{name}.".startswith(f"{module}.") for module in modules)]
        if not found:
            has = "expected one of " + ", ".join(name.removesuffix(".weight") for name in linear)
            has = has if linear else "this network has none"
            raise UserError(f"{OPTION} {shown(given)} matches no linear layer: {has}")
        chosen |= dict.fromkeys(found)
    owners = [id(tensor) for _, tensor in network.named_parameters(remove_duplicate=False)]
    for name in chosen:
        if parametrize.is_parametrized(linear[name]):
            raise UserError(f"{OPTION}: {name} has a parametrization already; leave the layer out")
        if owners.count(id(linear[name].weight)) > 1:
            raise UserError(f"{OPTION}: several modules share {name}; leave the layer out")
    return tuple(name for name in linear if name in chosen)


@torch.no_grad()
def mask_smallest(network: nn.Module, kept: Mapping[str, int]) -> None:
    """Set the weights of least magnitude to zero, in place.

    Args:
        network: The network, usually after surgery.
        kept: Name of a weight -> how many of its `PARTS` parts stay.
    """
    for name, parts in kept.items():
        mask_elements(network.get_parameter(name), parts)


@torch.no_grad()
def mask_elements(weight: Tensor, kept: int) -> None:
    """Set the elements of least magnitude of a contiguous weight to zero, in place, but for so many of its `PARTS`."""
    order = weight.abs().flatten().argsort(stable=True)
    weight.view(-1)[order[: zeros(weight.numel(), kept)]] = 0


@contextmanager
def zeros_held(network: nn.Module, weights: Sequence[str]) -> Iterator[None]:
    """While the context is open, what is zero in some weights of a network stays zero, whatever trains it.

    Args:
        network: The network. Inside, its state dict has other names for these weights.
        weights: Names of the weights.
    """
    layers = [network.get_submodule(name.rpartition(".")[0]) for name in weights]
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", Mask(layer.get_parameter("weight").detach() != 0))
    try:
        yield
    finally:
        for layer in layers:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
