"""Lower precisions where they are harmless: activations, and products that are summed up in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch


def activations_in(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Convolutions and linear layers compute, and hand on, what they compute in this precision; weights keep theirs.

    Args:
        dtype: float32: nothing changes.
        device: Of the network.
    """
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype, cache_enabled=False)  # weights change while the network runs


@contextmanager
def products_in(dtype: torch.dtype) -> Iterator[None]:
    """Matrix products of float32 tensors round their factors to this precision, and sum up in float32, on CPUs.

    Args:
        dtype: bfloat16, or float32: nothing changes.
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
