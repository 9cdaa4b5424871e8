"""Layers that the user excludes from pruning.

A kept layer does not change: all dimensions of its parameters and buffers keep their sizes. Neither its input nor its
output channels are pruned, nor the channels that other layers share with them. (To keep only the outputs of a layer,
set `min: 100%` in `groups.limits`.)
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from gnnrl_lightning.checks import shown
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.registry import resolve
from gnnrl_lightning.tracing.patterns import matches, nothing_matches
from gnnrl_lightning.tracing.walk import Walk

OPTION = "groups.keep"


def keep_layers(walk: Walk, network: nn.Module, keep: Sequence[str | type[nn.Module]]) -> tuple[str, ...]:
    """Freeze the channels of the layers that the user excludes from pruning.

    Args:
        walk: The finished walk; its labels are frozen.
        network: The network of the walk.
        keep: Names of modules (with all their submodules), parameters or buffers; globs over these names; or module
            types or their import paths (`torch.nn.ConvTranspose2d`).

    Returns:
        Names of the modules and parameters found; they freeze the same channels when given as `keep`.

    Raises:
        UserError: An item matches nothing, or only modules without parameters.
    """
    if isinstance(keep, str) or not isinstance(keep, Sequence):
        raise UserError(f"{OPTION} is {shown(keep)}: expected a list of names, globs or module types")
    tensors = dict(network.named_parameters(remove_duplicate=False))
    tensors |= dict(network.named_buffers(remove_duplicate=False))
    kept: dict[str, None] = {}
    for given in keep:
        found = find_named(network, list(tensors), given, OPTION)
        below = {item: [name for name in tensors if f"{name}.".startswith(f"{item}.")] for item in found}
        kept |= dict.fromkeys(item for item, names in below.items() if names)
        names = {name: None for names in below.values() for name in names}
        if not names:
            without = ", ".join(found)
            raise UserError(
                f"{OPTION} {_text(given)}: {without} has no parameters: there is nothing to keep, leave it out"
            )
        for name in names:
            walked = walk.aliases.get(id(tensors[name]))
            if walked is not None:
                _freeze(walk, walked, f"kept by the user ({_text(given)})")
    return tuple(kept)


def _text(given: str | type[nn.Module]) -> str:
    return given if isinstance(given, str) else f"{given.__module__}.{given.__qualname__}"


def find_named(network: nn.Module, tensors: Sequence[str], given: str | type[nn.Module], option: str) -> list[str]:
    """Return the names of the modules, parameters and buffers that a user has given.

    Args:
        network: The network.
        tensors: Names of the parameters and buffers that may be given.
        given: A name, a glob, or a module type or its import path.
        option: Name of the option, for messages.

    Raises:
        UserError: It matches nothing.
    """
    modules = dict(network.named_modules(remove_duplicate=False))
    modules.pop("")
    if isinstance(given, str):
        names = [*modules, *tensors]
        found = [name for name in names if matches(given, name)]
        if found:
            return found
        if not _is_path(given, names):
            raise nothing_matches(option, given, "module or parameter", names, ["the import path of a module type"])
        given = resolve(given, option)
    if not (isinstance(given, type) and issubclass(given, nn.Module)):
        raise UserError(f"{option} {given!r}: expected a name, a glob, or a module type such as torch.nn.Conv2d")
    found = [name for name, module in modules.items() if isinstance(module, given)]
    if not found:
        types = ", ".join(sorted({type(module).__name__ for module in modules.values()}))
        has = f"expected one of {types}"
        raise UserError(f"{option} {_text(given)}: there is no module of this type; {has}")
    return found


def _is_path(given: str, names: list[str]) -> bool:
    """Whether `given` is an import path, not a misspelt name: no name of the network starts with its first part."""
    first, *rest = given.split(".")
    return bool(rest) and given.replace(".", "").isidentifier() and first not in {name.split(".")[0] for name in names}


def _freeze(walk: Walk, name: str, reason: str) -> None:
    """Freeze the channels along every dimension of a parameter or buffer."""
    frozen = list(walk.parameters[name].labels)
    reading = [item for item in (*walk.contractions, *walk.training) if item.weight == name]
    frozen += [item.reads for item in reading if item.reads is not None]
    frozen += [gather.reads for gather in walk.gathers if gather.buffer == name]
    for labels in frozen:
        walk.labels.freeze(labels, "keep", "", reason)
