"""What versions of PyTorch before 2.13 end in or refuse: attention without heads, tensors kept in attributes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

OLDER = torch.__version__ < "2.13"  # compared as versions


class _Refusing(TorchFunctionMode):
    """Raises an error for attention without heads."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, unless it would end the process."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and 0 in (args[0] if args else kwargs["query"]).shape[1:-2]:
            raise RuntimeError("attention without heads needs PyTorch 2.13 or newer")
        return func(*args, **kwargs)


def attention_of_heads() -> AbstractContextManager[object]:
    """Raise a RuntimeError for attention without heads, where native code divides by their number, which is fatal."""
    return _Refusing() if OLDER else nullcontext()


def kept_in_attributes() -> AbstractContextManager[object]:
    """Let code that `torch.export` traces keep tensors in attributes, and restore these, as it does since 2.13."""
    return mock.patch("torch.export._trace._detect_attribute_assignment", _restored) if OLDER else nullcontext()


@contextmanager
def _restored(network: nn.Module) -> Iterator[None]:
    before = {module: tree_map(lambda item: item, _own(module)) for module in network.modules()}
    try:
        yield
    finally:
        for module, attributes in before.items():
            for name in _own(module).keys() - attributes.keys():
                delattr(module, name)
            vars(module).update(attributes)


def _own(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of a module that not every module has."""
    return {name: value for name, value in vars(module).items() if name not in STANDARD}


STANDARD = vars(nn.Module())
