"""Attention without heads, which ends the process in versions of PyTorch before 2.13."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

ENDS_PROCESS = torch.__version__ < "2.13"  # compared as versions
"""Whether attention without heads divides by zero in native code, which Python cannot catch."""


class _Refusing(TorchFunctionMode):
    """Raises an error for attention without heads."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, unless it would end the process."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and 0 in (args[0] if args else kwargs["query"]).shape[1:-2]:
            raise RuntimeError("attention without heads needs PyTorch 2.13 or newer")
        return func(*args, **kwargs)


def attention_of_heads() -> AbstractContextManager[object]:
    """Raise a RuntimeError for attention without heads, if it would end the process."""
    return _Refusing() if ENDS_PROCESS else nullcontext()
