"""Integers that a module holds: its attributes, and what is nested in them, `self.config.widths[-1]`.

What attributes hold may be lists, tuples, dictionaries and objects of any class, such as a configuration that all
modules share. Such a number is set in copies of what it is nested in, so that it is another one for this module alone.
Those of its parts count where its code names them, `self.attention.num_heads`.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator
from enum import Enum
from functools import cache, partial
from types import FunctionType
from typing import Any

from torch import Tensor, nn

from gnnrl_lightning.networks.copies import PLAIN, names_in

Keys = tuple[Hashable, ...]
"""Name of an attribute, and where the number is nested in it: names of attributes, keys and indices."""

OF_ALL_MODULES = frozenset(vars(nn.Module()))
"""Attributes in which every module has its parts and hooks."""

NOT_OF_USERS = ("torch.", "builtins.")
"""Packages of classes that hold no sizes of channels."""

DEPTH = 5
"""Maximum number of keys of a number."""

LARGEST = 1000
"""What has more parts than this is data, no configuration."""

OPAQUE = (nn.Module, Tensor, Enum, partial)
"""Types whose numbers are not those of the module that holds them, or that are one for the whole process."""


def numbers_of(module: nn.Module) -> dict[Keys, int]:
    """Return the integers that a module, or its class, holds, and those of its parts that its code names.

    Args:
        module: Any module.
    """
    return _own(module) | dict(_of_parts(module, _names_in(type(module)), DEPTH - 1))


def _of_parts(module: nn.Module, names: frozenset[str], depth: int) -> Iterator[tuple[Keys, int]]:
    """Yield the integers of the parts of a module that have these names, also by properties of the parts."""
    for name, part in module.named_children() if depth else ():
        if name in names:
            within = names.union(*(found for item, found in _functions_of(type(part)).items() if item in names))
            yield from (((name, *keys), number) for keys, number in _own(part).items() if keys[0] in within)
            yield from (((name, *keys), number) for keys, number in _of_parts(part, within, depth - 1))


@cache
def _functions_of(kind: type) -> dict[str, frozenset[str]]:
    """Return the names in the code of each method and property of a class, without those of PyTorch's own classes."""
    own = [base for base in reversed(kind.__mro__) if not f"{base.__module__}.".startswith(NOT_OF_USERS)]
    held = {name: getattr(item, "fget", item) for base in own for name, item in vars(base).items()}
    held.pop("__init__", None)  # it has been called
    return {name: frozenset(names_in(item.__code__)) for name, item in held.items() if isinstance(item, FunctionType)}


@cache
def _names_in(kind: type) -> frozenset[str]:
    return frozenset().union(*_functions_of(kind).values())


def _own(module: nn.Module) -> dict[Keys, int]:
    """Return the integers that a module, or its class, holds, those of its parts left out."""
    classes = [kind for kind in reversed(type(module).__mro__) if not f"{kind.__module__}.".startswith(NOT_OF_USERS)]
    held = {name: value for item in (*classes, module) for name, value in vars(item).items()}
    own = {name: value for name, value in held.items() if name not in OF_ALL_MODULES and name[:2] != "__"}
    return {(name, *keys): number for name, value in own.items() for keys, number in _numbers(value, DEPTH - 1, set())}


def number_at(module: nn.Module, keys: Keys) -> int:
    """Return a number that a module holds."""
    _, module, keys = holder_of("", module, keys)
    found = getattr(module, str(keys[0]))
    for key in keys[1:]:
        found = _parts(found)[key]
    return found


def set_number(module: nn.Module, keys: Keys, number: int) -> None:
    """Set a number that a module holds, in copies of what it is nested in."""
    _, module, keys = holder_of("", module, keys)
    setattr(module, str(keys[0]), _with(getattr(module, str(keys[0])), keys[1:], number))


def holder_of(path: str, module: nn.Module, keys: Keys) -> tuple[str, nn.Module, Keys]:
    """Return the part of a module that holds a number itself, its path, and where it does."""
    while isinstance(part := getattr(module, str(keys[0])), nn.Module):
        path, module, keys = f"{path}.{keys[0]}".removeprefix("."), part, keys[1:]
    return path, module, keys


def _numbers(held: Any, depth: int, seen: set[int]) -> Iterator[tuple[Keys, int]]:
    """Yield the integers in what a module holds, each object once."""
    if type(held) is int:
        yield (), held
    elif depth and type(held) not in PLAIN and id(held) not in seen:
        seen.add(id(held))
        parts = _parts(held)
        for key, part in parts.items() if len(parts) <= LARGEST else ():
            yield from (((key, *keys), number) for keys, number in _numbers(part, depth - 1, seen))


def _parts(held: Any) -> dict[Any, Any]:
    """Return what a container holds by key, or an object by attribute."""
    if isinstance(held, (*OPAQUE, type)):
        return {}
    if isinstance(held, dict):
        return held
    if isinstance(held, (list, tuple)):
        return dict(enumerate(held))
    names = [name for kind in type(held).__mro__ for name in _slots(kind)]
    slots = {name: getattr(held, name) for name in names if hasattr(held, name)}
    return slots | getattr(held, "__dict__", {})


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return tuple(name for name in ((slots,) if isinstance(slots, str) else slots) if not name.startswith("__"))


def _with(held: Any, keys: Keys, number: int) -> Any:
    """Return what a module holds with another number in it."""
    if not keys:
        return number
    key, part = keys[0], _with(_parts(held)[keys[0]], keys[1:], number)
    if isinstance(held, tuple):
        parts = (part if place == key else item for place, item in enumerate(held))
        return held._make(parts) if hasattr(held, "_make") else type(held)(parts)  # pyright: ignore[reportAttributeAccessIssue]
    copied = copy.copy(held)
    if copied is held:
        raise TypeError(f"{type(held).__name__} cannot be copied")
    if isinstance(held, (dict, list)):
        copied[key] = part
    elif key not in getattr(copied, "__dict__", {}):
        object.__setattr__(copied, str(key), part)  # a slot
    if key in getattr(copied, "__dict__", {}):  # dictionaries may hold their items there as well
        copied.__dict__[key] = part  # frozen dataclasses, and classes with a `__setattr__` of their own
    return copied
