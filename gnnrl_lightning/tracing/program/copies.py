"""Copies of networks in which tensors are shared or replaced, wherever the network holds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter

import torch
from torch import Tensor, nn

from gnnrl_lightning.networks.copies import copied_history, copied_with, survey


def shared_copy(network: nn.Module) -> nn.Module:
    """Copy the module structure, in evaluation mode, but share the tensors; the original modules remain unchanged."""
    memo = copied_history(network)
    memo |= {id(tensor): tensor for _, tensor in named_tensors(network)}
    return copied_with(memo, network).eval()


def structural_copy(network: nn.Module, replaced: Mapping[str, Tensor]) -> nn.Module:
    """Copy a network and replace the given parameters and buffers, including their aliases.

    Args:
        network: Any module.
        replaced: Name in the network -> replacement tensor. Everything else is copied.
    """
    memo = copied_history(network)
    for name, tensor in replaced.items():
        original = attrgetter(name)(network)
        memo[id(original)] = _as_original(tensor, original)
    return copied_with(memo, network)


def converted_copy(network: nn.Module, convert: Callable[[str, Tensor], Tensor]) -> nn.Module:
    """Copy a network and replace every tensor that it holds.

    Args:
        network: Any module.
        convert: Function of name and tensor; the name is empty for tensors that are neither parameters nor buffers.
    """
    memo, held = survey(network)
    for name, tensor in (*named_tensors(network), *(("", tensor) for tensor in held)):
        if id(tensor) not in memo:
            memo[id(tensor)] = _as_original(convert(name, tensor), tensor)
    return copied_with(memo, network)


def on_meta(network: nn.Module) -> nn.Module:
    """Copy a network to the meta device: its tensors have shapes but no data, and no gradients."""
    return converted_copy(network, lambda name, tensor: torch.empty_like(tensor, device="meta")).requires_grad_(False)


def without_gradients(network: nn.Module) -> nn.Module:
    """Copy a network whose tensors share their data with the original's, and have no gradients.

    `FlopCounterMode` fails on modules that are called with a parameter which requires one.
    """
    return converted_copy(network, lambda name, tensor: tensor.detach()).requires_grad_(False)


def named_tensors(network: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the parameters and buffers with their names, each tensor once."""
    return [*network.named_parameters(), *network.named_buffers()]


def _as_original(tensor: Tensor, original: Tensor) -> Tensor:
    if not isinstance(original, nn.Parameter):
        return tensor
    parameter = nn.Parameter(tensor, requires_grad=original.requires_grad)
    for key, value in vars(original).items():
        setattr(parameter, key, value)
    return parameter
