"""Fine-grained pruning: the smallest weights of linear layers are zero, in addition to channel pruning.

The share of a layer's weights that stays is an action like the width of a channel group: a graph that was traced with
`masks` has a group for each masked weight, of `gnnrl_lightning.cost.products.PARTS` equal parts. Masked weights are
zeros in dense tensors: they save neither MACs nor latency; `params` counts them, `nonzero` does not.

While a network trains, a mask is a parametrization, `weight = original * mask`, which keeps the zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        UserError: An item matches no linear layer, or a layer's weight is shared, or computed from other parameters.
    """
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise UserError(f"{OPTION} is {shown(layers)}: expected a list of names, globs or module types")
    every = {path: each for path, each in network.named_modules(remove_duplicate=False) if isinstance(each, nn.Linear)}
    first = {id(module): path for path, module in reversed(every.items())}
    chosen = set[int]()
    for given in layers:
        modules = find_named(network, [], given, OPTION)
        found = {id(each) for path, each in every.items() if any(f"{path}.".startswith(f"{name}.") for name in modules)}
        if not found:
            has = "expected one of " + ", ".join(every) if every else "this network has none"
            raise UserError(f"{OPTION} {shown(given)} matches no linear layer: {has}")
        chosen |= found
    masked = {f"{path}.weight": every[path] for path in every if first[id(every[path])] == path}
    masked = {name: module for name, module in masked.items() if id(module) in chosen}
    named, others = dict(network.named_parameters(remove_duplicate=False)), list(network.modules())
    for name, module in masked.items():
        if name not in named:
            raise UserError(f"{OPTION}: {name} is computed from other parameters; leave the layer out")
        owners = [other for other in others if any(each is module.weight for each in other._parameters.values())]
        if len(owners) > 1:
            raise UserError(f"{OPTION}: several modules share {name}; leave the layer out")
    return tuple(masked)


@torch.no_grad()
def mask_smallest(network: nn.Module, kept: Mapping[str, int]) -> None:
    """Set the weights of least magnitude to zero, in place.

    Args:
        network: The network, usually after surgery.
        kept: Name of a weight -> how many of its `PARTS` parts stay; those of layers that have gone are left out.
    """
    left = _left(network, kept)
    for name, parts in kept.items():
        if name in left:
            mask_elements(left[name], parts)


@torch.no_grad()
def mask_elements(weight: Tensor, kept: int) -> None:
    """Set the elements of least magnitude to zero, in place, but for so many of its `PARTS`."""
    order = weight.abs().flatten().argsort(stable=True)
    masked = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    masked[order[: zeros(weight.numel(), kept)]] = True
    weight.masked_fill_(masked.view(weight.shape), 0)


def _left(network: nn.Module, weights: Iterable[str]) -> dict[str, Tensor]:
    """These weights by name, without those of layers that have gone entirely."""
    named = dict(network.named_parameters(remove_duplicate=False))
    return {name: named[name] for name in weights if name in named}


@contextmanager
def zeros_held(network: nn.Module, weights: Sequence[str]) -> Iterator[None]:
    """While the context is open, what is zero in some weights of a network stays zero, whatever trains it.

    Args:
        network: The network. Inside, its state dict has other names for these weights.
        weights: Names of the weights; those of layers that have gone entirely are left out.
    """
    layers = [network.get_submodule(name.rpartition(".")[0]) for name in _left(network, weights)]
    orders = [list(layer._parameters) for layer in layers]
    held = list[nn.Module]()
    try:
        for layer in layers:
            mask = Mask(layer.get_parameter("weight").detach() != 0)
            parametrize.register_parametrization(layer, "weight", mask)
            held.append(layer)
        yield
    finally:
        for layer, order in zip(held, orders, strict=False):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
            for name in order:  # the state dict has its usual order
                layer._parameters[name] = layer._parameters.pop(name)
