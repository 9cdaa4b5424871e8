"""Lower precision where it is harmless: activations, and products accumulated in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch


def activations_in(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which convolutions and linear layers compute in this precision; weights keep theirs.

    Args:
        dtype: Precision of activations; float32 changes nothing.
        device: Device of the network.
    """
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype, cache_enabled=False)  # weights change during the forward pass


@contextmanager
def products_in(dtype: torch.dtype) -> Iterator[None]:
    """Let float32 matrix products round their factors to this precision, and accumulate in float32, on CPUs.

    Processors with AMX do. Those with AVX-512 alone may keep a second term of each factor, or all of it.

    Args:
        dtype: bfloat16, or float32, which changes nothing.
    """
    if dtype != torch.bfloat16 or not torch.backends.mkldnn.is_available():
        yield
        return
    products: Any = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
    before = products.fp32_precision
    products.fp32_precision = "bf16"
    try:
        yield
    finally:
        products.fp32_precision = before
