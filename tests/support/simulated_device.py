"""A simulated accelerator for tests on machines without one: tensors that report its device but compute on the CPU.

As on an accelerator, an operation on tensors of both devices is an error, except for scalars and for indices on the
CPU, and only copies move data between the devices.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

SIMULATED = torch.device("maia", 0)

aten = torch.ops.aten
INDEXING = (aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default)
COPIES = (aten._to_copy.default, aten.copy_.default)


class Remote(Tensor):
    """A tensor on the simulated device."""

    __slots__ = ("inner",)  # not in `vars`, which copies of a parameter take over

    @staticmethod
    def __new__(cls, inner: Tensor) -> Remote:
        return Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="meta",  # a device that needs no driver
            requires_grad=inner.requires_grad,
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    @property
    def device(self) -> torch.device:
        """The simulated device."""
        return SIMULATED

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class SimulatedDevice(TorchDispatchMode):
    """A mode in which the simulated device exists.

    Attributes:
        sent: Number of elements of each tensor copied to the CPU, in order.
        received: Number of elements of each tensor copied from the CPU, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[int] = []
        self.received: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        source = args[0] if args else None
        to_cpu = func is aten._to_copy.default and torch.device(kwargs.get("device") or SIMULATED).type == "cpu"
        if isinstance(source, Remote) and (to_cpu or func is aten._local_scalar_dense.default):
            self.sent.append(source.numel())
        to_device = func is aten._to_copy.default and torch.device(kwargs.get("device") or "cpu").type == SIMULATED.type
        if isinstance(source, Tensor) and not isinstance(source, Remote) and to_device:
            self.received.append(source.numel())
        return run(func, args, kwargs)


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the device of its tensors."""
    tensors = [item for item in tree_flatten((args, kwargs))[0] if isinstance(item, Tensor)]
    asked = kwargs.get("device")
    asked = None if asked is None else torch.device(asked)
    remote = any(isinstance(item, Remote) for item in tensors)
    if func not in COPIES and asked is not None and asked.type == "meta":
        asked = SIMULATED  # PyTorch creates a tensor like one of ours
    if not remote and (asked is None or asked.type != SIMULATED.type):
        return func(*args, **kwargs)
    if remote and func not in COPIES and (asked is None or asked.type != "meta"):
        stray = [item for item in tensors if not isinstance(item, Remote) and item.dim() > 0]
        if func in INDEXING:
            stray = [item for item in stray if item is args[0]]
        if stray:
            raise RuntimeError(f"{func}: tensors on two devices, {stray[0].shape} on {stray[0].device}")
    plain = tree_map(lambda item: item.inner if isinstance(item, Remote) else item, (args, kwargs))
    inner_args, inner_kwargs = plain
    if asked is not None and asked.type == SIMULATED.type:
        inner_kwargs = inner_kwargs | {"device": torch.device("cpu")}
    result = func(*inner_args, **inner_kwargs)
    stays = remote if asked is None else asked.type == SIMULATED.type
    if func is aten.copy_.default:
        stays = isinstance(args[0], Remote)
    if not stays:
        return result.clone() if isinstance(result, Tensor) and func is aten._to_copy.default else result
    known = {id(item.inner): item for item in tensors if isinstance(item, Remote)}
    return tree_map(
        lambda item: (
            known.get(id(item), item) if id(item) in known else Remote(item) if isinstance(item, Tensor) else item
        ),
        result,
    )
