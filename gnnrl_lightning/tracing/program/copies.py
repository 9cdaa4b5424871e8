"""Copies of networks in which tensors are shared or replaced, wherever the network holds them."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from operator import attrgetter
from types import CellType, FunctionType, MethodType, ModuleType

import torch
from torch import Tensor, nn

EMPTY = {dict, OrderedDict, set}
"""Container types whose empty instances are replaced by new ones instead of being copied."""

PLAIN = {type(None), bool, int, float, str, bytes, torch.dtype, type, FunctionType, MethodType, ModuleType}
"""Types that hold no tensors."""

HOOKS = ("_forward_pre_hooks", "_forward_hooks")
"""Attributes of modules in which their hooks are."""

REGISTERED = ("_parameters", "_buffers", "_modules")
"""Attributes of modules in which `named_parameters`, `named_buffers` and `modules` look."""


def shared_copy(network: nn.Module) -> nn.Module:
    """Copy the module structure, in evaluation mode, but share the tensors; the original modules remain unchanged."""
    memo = _copied_history(network)
    memo |= {id(tensor): tensor for _, tensor in named_tensors(network)}
    return _copied(network, memo).eval()


def structural_copy(network: nn.Module, replaced: Mapping[str, Tensor]) -> nn.Module:
    """Copy a network and replace the given parameters and buffers, including their aliases.

    Args:
        network: Any module.
        replaced: Name in the network -> replacement tensor. Everything else is copied.
    """
    memo = _copied_history(network)
    for name, tensor in replaced.items():
        original = attrgetter(name)(network)
        memo[id(original)] = _as_original(tensor, original)
    return _copied(network, memo)


def converted_copy(network: nn.Module, convert: Callable[[str, Tensor], Tensor]) -> nn.Module:
    """Copy a network and replace every tensor that it holds.

    Args:
        network: Any module.
        convert: Function of name and tensor; the name is empty for tensors that are neither parameters nor buffers.
    """
    memo, held = _survey(network)
    for name, tensor in (*named_tensors(network), *(("", tensor) for tensor in held)):
        if id(tensor) not in memo:
            memo[id(tensor)] = _as_original(convert(name, tensor), tensor)
    return _copied(network, memo)


def _copied(network: nn.Module, memo: dict[int, object]) -> nn.Module:
    """Copy a network in the mode it is in: a copy of a `torch.fx.GraphModule` is in training mode."""
    modes = [module.training for module in network.modules()]
    copied = copy.deepcopy(network, memo)
    for module, mode in zip(copied.modules(), modes, strict=True):
        module.training = mode
        for held in (vars(module), *(vars(module).get(name, {}) for name in HOOKS)):
            functions = [(name, item) for name, item in held.items() if type(item) is FunctionType]
            held.update((name, _refer_to_copies(function, memo)) for name, function in functions)
    return copied


def _refer_to_copies(function: FunctionType, memo: Mapping[int, object]) -> FunctionType:
    """Return a function whose variables are those of a copy, where they are parts of what has been copied.

    `copy.deepcopy` returns a function itself: a hook of the copy would write into the original.
    """
    cells = [_copied_cell(cell, memo) for cell in function.__closure__ or ()]
    if all(new is old for new, old in zip(cells, function.__closure__ or (), strict=True)):
        return function
    made = FunctionType(function.__code__, function.__globals__, closure=tuple(cells))
    for name in ("__defaults__", "__kwdefaults__", "__name__", "__qualname__", "__module__", "__doc__"):
        setattr(made, name, getattr(function, name))
    made.__dict__ |= function.__dict__
    return made


def _copied_cell(cell: CellType, memo: Mapping[int, object]) -> CellType:
    try:
        held = cell.cell_contents
    except ValueError:  # a variable without a value yet
        return cell
    found = memo.get(id(held), held)
    return cell if found is held else CellType(found)


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


def held_tensors(network: nn.Module) -> list[Tensor]:
    """Return the tensors in attributes of modules that are no parameters or buffers, each once.

    They may be in lists, dictionaries and objects nested in attributes to any depth.
    """
    return _survey(network)[1]


def _survey(network: nn.Module) -> tuple[dict[int, object], list[Tensor]]:
    """Return a memo for `copy.deepcopy` with copies of what most of a module is, and the tensors in attributes.

    Most of a module is empty dictionaries of hooks and tuples of numbers, which `copy.deepcopy` copies slowly.
    """
    memo: dict[int, object] = {}
    seen, held, waiting = set(), list[Tensor](), list[object]()
    for module in network.modules():
        seen.add(id(module))
        for name, value in vars(module).items():
            kind = type(value)
            if kind in PLAIN:
                continue
            if kind in EMPTY and not value:
                memo[id(value)] = kind()
            elif kind is tuple and PLAIN.issuperset(map(type, value)):
                memo[id(value)] = value
            elif name not in REGISTERED:
                waiting.append(value)
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, type):
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            held.append(item)
            continue
        parts = item.values() if isinstance(item, Mapping) else item if isinstance(item, (list, tuple, set)) else ()
        waiting += [part for part in (*parts, *getattr(item, "__dict__", {}).values()) if type(part) not in PLAIN]
    return memo, held


def _copied_history(network: nn.Module) -> dict[int, object]:
    """Return a memo for `copy.deepcopy` with copies of what a forward pass has left in the network.

    Only leaves of the autograd graph copy themselves.
    """
    memo, held = _survey(network)
    return memo | {id(tensor): tensor.detach().clone() for tensor in held if not tensor.is_leaf}


def _as_original(tensor: Tensor, original: Tensor) -> Tensor:
    if not isinstance(original, nn.Parameter):
        return tensor
    parameter = nn.Parameter(tensor, requires_grad=original.requires_grad)
    for key, value in vars(original).items():
        setattr(parameter, key, value)
    return parameter
