"""Copies of networks that refer to themselves alone, whatever the networks hold.

`copy.deepcopy` fails at what a forward pass with gradients has left in a network, and returns functions themselves:
hooks of the copy, and functions in its attributes, would act on the original.
"""

from __future__ import annotations

import copy
import weakref
from collections import OrderedDict, deque
from collections.abc import Mapping
from functools import partial
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl_lightning.errors import UserError, one_line

EMPTY = {dict, OrderedDict, set}
"""Container types whose empty instances are replaced by new ones instead of being copied."""

PLAIN = {type(None), bool, int, float, str, bytes, torch.dtype, type, FunctionType, MethodType, ModuleType}
"""Types that hold no tensors."""

IN_ORDER = (list, deque)
"""Types of containers whose items have places that can be set."""

HOLDERS = (*IN_ORDER, tuple, set, frozenset)
"""Types of containers without keys."""

BY_NAME = {FunctionType, MethodType, weakref.ReferenceType, partial}
"""Types whose instances may refer to a network that does not hold them."""

REGISTERED = ("_parameters", "_buffers", "_modules")
"""Attributes of modules in which `named_parameters`, `named_buffers` and `modules` look."""

Memo = dict[int, Any]
"""`id` of an object of the original -> its copy, as in `copy.deepcopy`."""


def uncompiled(network: nn.Module) -> nn.Module:
    """Return the network within one of `torch.compile`, which would compile each of its copies and candidates anew."""
    return network._orig_mod if isinstance(network, torch._dynamo.OptimizedModule) else network


def independent_copy(network: nn.Module) -> nn.Module:
    """Copy a network in the mode it is in; hooks and functions that the copy holds act on the copy.

    Args:
        network: Any module; not changed.

    Raises:
        UserError: It holds something that cannot be copied.
    """
    return copied_with(copied_history(network), network)


def copied_with(memo: Memo, network: nn.Module) -> nn.Module:
    """Copy a network, of which some objects have their copies already; see `independent_copy`."""
    modes = [module.training for module in network.modules()]  # a copy of a `torch.fx.GraphModule` is in training mode
    try:
        copied = copy.deepcopy(network, memo)
        _Functions(memo).settle()
    except Exception as error:  # what users' objects raise when they are copied
        raise UserError(
            f"{type(network).__name__} cannot be copied{_culprit(network)}: {one_line(error)}; keep such an object "
            "outside the network, or give its class a __deepcopy__"
        ) from error
    for module, mode in zip(copied.modules(), modes, strict=True):
        module.training = mode
    return copied


def _culprit(network: nn.Module) -> str:
    """Name the attribute that cannot be copied; "" if each can be copied alone."""
    known = {id(module): module for module in network.modules()} | copied_history(network)
    for path, module in network.named_modules():
        for name, value in vars(module).items():
            try:
                copy.deepcopy(value, dict(known))
            except Exception:  # as above
                return f", because of {f'{path}.{name}'.removeprefix('.')}"
    return ""


class _Functions:
    """Lets the functions and weak references in a copy refer to the copy; `copy.deepcopy` returns them themselves.

    What functions refer to (variables of the code around them, and defaults) is copied if parts of the original are in
    it, and is shared with the original otherwise; of global names, those of parts of the original stand for the copy's.

    Args:
        memo: What has been copied; what functions refer to is added.
    """

    def __init__(self, memo: Memo) -> None:
        self.memo = memo

    def settle(self) -> None:
        """Replace functions and weak references in everything that has been copied."""
        done = {id(self.memo)}  # where `copy.deepcopy` keeps the originals
        while waiting := self.memo.keys() - done:
            done |= waiting
            for key in waiting:
                if id(copied := self.memo[key]) != key:
                    self._settle(copied)

    def _settle(self, copied: Any) -> None:
        for place, item in enumerate([*copied] if isinstance(copied, IN_ORDER) else ()):
            copied[place] = self._settled(item)
        for held in (copied, getattr(copied, "__dict__", None)):
            if isinstance(held, dict):
                found = [(key, item) for key, item in held.items() if _may_name(item)]
                held.update([(key, new) for key, item in found if (new := self._settled(item)) is not item])

    def _settled(self, item: Any) -> Any:
        """Return what a copied container holds, with functions and weak references in it replaced."""
        kind = type(item)
        if kind is FunctionType:
            return self._function(item)
        if kind is MethodType:
            function = self._settled(item.__func__)
            return item if function is item.__func__ else MethodType(function, item.__self__)
        if kind is weakref.ReferenceType:
            found = item()
            return item if self._copy_of(found) is found else weakref.ref(self._copy_of(found))
        if kind is partial:
            given = item.func, item.args, tuple(item.keywords.values())
            function, args, values = new = self._settled(given)
            return item if new is given else partial(function, *args, **dict(zip(item.keywords, values, strict=True)))
        if isinstance(item, (tuple, set, frozenset)):
            parts = [self._settled(part) for part in item]
            if all(map(lambda new, old: new is old, parts, item)):
                return item
            return item._make(parts) if hasattr(item, "_make") else kind(parts)  # pyright: ignore[reportAttributeAccessIssue]
        return item

    def _function(self, function: FunctionType) -> FunctionType:
        """Return a function of the same code that refers to the copy."""
        if id(function) in self.memo or not self._reaches(function):
            return self._copy_of(function)
        closure = function.__closure__ or ()
        fresh = [cell for cell in closure if id(cell) not in self.memo and self._reaches(cell)]
        self.memo |= {id(cell): CellType() for cell in fresh}
        cells = tuple(map(self._copy_of, closure))
        found = self._named(function)
        names = _Names(function.__globals__, found) if found else function.__globals__
        made = FunctionType(function.__code__, names, function.__name__, closure=cells)
        self.memo[id(function)] = made  # it may refer to itself
        for cell in fresh:
            self._copy_of(cell).cell_contents = self._referred(cell.cell_contents)
        for name in ("__defaults__", "__kwdefaults__"):
            setattr(made, name, self._referred(getattr(function, name)))
        for name in ("__qualname__", "__module__", "__doc__"):
            setattr(made, name, getattr(function, name))
        made.__dict__ |= self._referred(vars(function))
        return made

    def _referred(self, held: Any) -> Any:
        """Return what a function refers to, or its copy if parts of the original are in it."""
        return self._settled(copy.deepcopy(held, self.memo)) if self._reaches(held) else held

    def _named(self, function: FunctionType) -> dict[str, Any]:
        """Return the copies of parts of the original that have global names in a function's code, as in notebooks."""
        known = function.__globals__
        named = {name: self._copy_of(known[name]) for name in names_in(function.__code__) if name in known}
        return {name: copied for name, copied in named.items() if copied is not known[name]}

    def _copy_of(self, item: Any) -> Any:
        return self.memo.get(id(item), item)

    def _reaches(self, item: Any) -> bool:
        """Whether parts of the original are in an object, at any depth."""
        seen, waiting = dict[int, Any](), [item]
        while waiting:
            item = waiting.pop()
            if self._copy_of(item) is not item or (isinstance(item, FunctionType) and self._named(item)):
                return True
            if id(item) not in seen and not isinstance(item, (type, ModuleType, Tensor)):
                seen[id(item)] = item
                waiting += _parts(item)
        return False


class _Names(dict[str, Any]):
    """Global names of a function, some of which stand for something else."""

    def __init__(self, known: Mapping[str, Any], others: Mapping[str, Any]) -> None:
        super().__init__(others)
        self.known = known

    def __missing__(self, name: str) -> Any:
        """Return what the name stands for by now."""
        return self.known[name]


def names_in(code: CodeType) -> set[str]:
    """Return the names in code and in the functions that it defines."""
    inner = (names_in(item) for item in code.co_consts if isinstance(item, CodeType))
    return {*code.co_names}.union(*inner)


def _may_name(item: Any) -> bool:
    """Whether an object may be, or hold, one of the types in `BY_NAME`; networks have thousands that may not."""
    return type(item) in BY_NAME or isinstance(item, (tuple, set, frozenset))


def _parts(item: Any) -> list[Any]:
    """Return what an object holds or refers to."""
    parts = [*vars(item).values()] if hasattr(item, "__dict__") else []
    if isinstance(item, dict):
        return [*parts, *item.keys(), *item.values()]
    if isinstance(item, HOLDERS):
        return [*parts, *item]
    if isinstance(item, FunctionType):
        return [*parts, *(item.__closure__ or ()), item.__defaults__, item.__kwdefaults__]
    if isinstance(item, MethodType):
        return [item.__func__, item.__self__]
    if isinstance(item, partial):
        return [*parts, item.func, item.args, item.keywords]
    if isinstance(item, weakref.ReferenceType):
        return [item()]
    if isinstance(item, CellType):
        try:
            return [item.cell_contents]
        except ValueError:  # a variable without a value yet
            return []
    return parts


def copied_history(network: nn.Module) -> Memo:
    """Return a memo for `copy.deepcopy` with copies of what a forward pass has left in the network.

    Only leaves of the autograd graph copy themselves.
    """
    memo, held = survey(network)
    return memo | {id(tensor): tensor.detach().clone() for tensor in held if not tensor.is_leaf}


def survey(network: nn.Module) -> tuple[Memo, list[Tensor]]:
    """Return a memo for `copy.deepcopy` with copies of what most of a module is, and the tensors in attributes.

    Most of a module is empty dictionaries of hooks and tuples of numbers, which `copy.deepcopy` copies slowly; Python's
    modules, such as `self.functional = F`, are not copied.
    """
    memo: Memo = {}
    seen, held, waiting = set(), list[Tensor](), list[object]()
    for module in network.modules():
        seen.add(id(module))
        for name, value in vars(module).items():
            kind = type(value)
            if kind in PLAIN:
                if kind is ModuleType:
                    memo[id(value)] = value
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
        parts = item.values() if isinstance(item, Mapping) else item if isinstance(item, HOLDERS) else ()
        waiting += [part for part in (*parts, *getattr(item, "__dict__", {}).values()) if type(part) not in PLAIN]
    return memo, held
