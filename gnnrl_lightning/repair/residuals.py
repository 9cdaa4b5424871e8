"""Observation of layers during a forward pass, and of the additions of their outputs to shortcuts."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from gnnrl_lightning.calibration.observe import ARGUMENTS, Call, bind
from gnnrl_lightning.surgery.vanished import WithoutInputs, constant_output

IN_PLACE = (Tensor.__iadd__, Tensor.add_)
ADDITIONS = (torch.add, Tensor.add, Tensor.__add__, *IN_PLACE)


Rerun = Callable[[], Tensor]
"""A function that runs a layer, and the batch norm after it, again."""


class LayerHooks:
    """What a `ResidualObserver` calls, with the name of a layer's weight; by default, nothing happens."""

    def before(self, name: str, call: Call) -> bool:
        """A layer is about to run; True defers it and its batch norm until `at_sum`, which then gives the summand."""
        return False

    def after(self, name: str, output: Tensor) -> None:
        """A layer has run."""

    def at_norm(self, name: str, eps: float) -> None:
        """A batch norm is about to read the layer's output."""

    def at_sum(self, name: str, output: Tensor, other: Tensor, rerun: Rerun) -> Tensor | None:
        """The output of the latest layer, or of its batch norm, is about to be added to another tensor.

        Returns:
            A replacement for the output, or None.
        """

    def at_other(self, name: str) -> None:
        """Another operator reads that output."""


class ResidualObserver(TorchFunctionMode):
    """A context that calls hooks for every layer with one of the given weights, and for additions of its output.

    Args:
        weights: Name -> weight tensor of the running network.
        hooks: What is called.
        constants: Name -> layer without inputs of the running network; its calls have the layer's input only.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], hooks: LayerHooks, constants: Mapping[str, WithoutInputs] | None = None
    ) -> None:
        super().__init__()
        self._weights = dict(weights)  # kept alive, so that their ids remain valid
        self._names = {id(weight): name for name, weight in (*weights.items(), *(constants or {}).items())}
        self._hooks = hooks
        self._outputs: dict[int, tuple[str, weakref.ref[Tensor]]] = {}
        self._name = ""
        self._latest: Tensor | None = None
        self._version = 0
        self._waits = False
        self._rerun: Rerun = lambda: torch.empty(0)

    def _is_latest(self, value: Any) -> bool:
        return value is self._latest and value is not None and value._version == self._version

    def _made(self, name: str, output: Tensor, rerun: Rerun) -> Tensor:
        self._name, self._latest, self._version, self._rerun = name, output, output._version, rerun
        self._outputs[id(output)] = name, weakref.ref(output)
        return output

    def _read(self, args: Any, kwargs: Mapping[str, Any], result: Any) -> None:
        """Report known outputs among the arguments of a call that returns tensors."""
        if not any(isinstance(item, Tensor) for item in _flat((result,))):
            return
        for item in _flat((*args, *kwargs.values())):
            name, reference = self._outputs.get(id(item), ("", None))
            if reference is not None and reference() is item:
                self._hooks.at_other(name)

    def _constant(self, func: Callable[..., Tensor], module: Any, x: Tensor) -> Tensor:
        """Intercept a layer without inputs, or the batch norm after it."""
        if isinstance(module, WithoutInputs):
            name = self._names.get(id(module))
            if name is None:
                return func(module, x)
            self._waits = self._hooks.before(name, {"input": x})
            output = self._made(name, func(module, x), lambda: func(module, x))
            self._hooks.after(name, output)
            return output
        if not self._is_latest(x):
            return func(module, x)
        self._hooks.at_norm(self._name, module.eps)
        layer = self._rerun
        return self._made(self._name, func(module, x), lambda: func(module, layer()))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Intercept one call."""
        kwargs = kwargs or {}
        if func in ARGUMENTS:
            call = bind(func, args, kwargs)
            name = self._names.get(id(call["weight"]))
            if name is not None:
                self._read(args, kwargs, call["input"])
                self._waits = self._hooks.before(name, call)
                output = self._made(name, _unset(func, call) if self._waits else func(**call), lambda: func(**call))
                self._hooks.after(name, output)
                return output
        elif func is constant_output:
            return self._constant(func, *args)
        elif func is F.batch_norm and args and self._is_latest(args[0]):
            self._hooks.at_norm(self._name, float(kwargs.get("eps", args[7] if len(args) > 7 else 1e-5)))
            layer = self._rerun
            output = torch.empty_like(args[0]) if self._waits else func(*args, **kwargs)
            return self._made(self._name, output, lambda: func(layer(), *args[1:], **kwargs))
        elif func in ADDITIONS and not kwargs and len(args) == 2:
            for output, other in (args, args[::-1]):
                if self._is_latest(output) and isinstance(other, Tensor) and other.shape == output.shape:
                    replaced = self._hooks.at_sum(self._name, output, other, self._rerun)
                    self._read((other,), {}, other)
                    if func not in IN_PLACE:
                        return torch.add(output if replaced is None else replaced, other)
                    self._outputs.pop(id(args[0]), None)  # from now on this tensor is the sum
                    return func(*args) if replaced is None else torch.add(replaced, other, out=args[0])
        result = func(*args, **kwargs)
        self._read(args, kwargs, result)
        return result


def _unset(func: Callable[..., Tensor], call: Call) -> Tensor:
    """Return an uninitialised tensor of the call's output shape."""
    device = call["input"].device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else call["input"].dtype
    meta = {"device": "meta", "dtype": dtype}
    like = func(**{name: value.to(**meta) if isinstance(value, Tensor) else value for name, value in call.items()})
    return torch.empty_strided(like.shape, like.stride(), dtype=dtype, device=call["input"].device)


def _flat(items: Any) -> Iterator[Any]:
    """Yield the items of nested lists and tuples."""
    for item in items:
        if isinstance(item, (list, tuple)):
            yield from _flat(item)
        else:
            yield item
