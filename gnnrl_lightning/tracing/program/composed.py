"""Functions of PyTorch that are written in Python and call others, which a mode of `torch.overrides` does not see.

An exported graph has the operators that they call, as operators of the module whose code calls the function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from torch.nn import functional
from torch.overrides import TorchFunctionMode

COMPOSED = (functional.multi_head_attention_forward,)
"""These functions."""


def call_within(mode: TorchFunctionMode, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call one of `COMPOSED` so that a mode, which is handling this call, sees the functions that it calls.

    Args:
        mode: The mode.
        function: The function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """
    # Such a function asks whether a mode handles it, and would call the mode again.
    with mode, patch.object(functional, "has_torch_function", lambda _: False):
        return function(*args, **kwargs)
