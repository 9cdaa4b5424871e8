"""Properties of the machine: its processor, and its rate of matrix products."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from gnnrl_lightning.speed import machine
from gnnrl_lightning.speed.rounds import synchronize

FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8")
PRODUCTS = {"cpu": (2048, 1), "cuda": (8192, 10)}
"""Rows of the matrices, and products per synchronisation; with few small products, launches would dominate on a GPU."""


def processor() -> dict[str, Any]:
    """Name, cores and relevant vector extensions of the processor."""
    flags = next(iter(machine.cpu_info("flags")), "").split()
    return {
        "processor": machine.processor(),
        "cores": os.cpu_count(),
        "cpu_features": [name for name in FEATURES if name in flags],
    }


def matmul_peak(dtype: torch.dtype, device: torch.device, rows: int | None = None, repeats: int = 9) -> float:
    """Multiply-accumulates per second of a square matrix product, the best of several.

    Args:
        dtype: Type of the matrices.
        device: Device of the product.
        rows: Rows of the matrices; None: enough to keep the device busy.
        repeats: Number of timed products.
    """
    size, products = PRODUCTS[device.type]
    size = rows or size
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    with rounded_as_convolutions():
        for _ in range(repeats + 2):
            start = time.perf_counter()
            for _ in range(products):
                torch.mm(left, right)
            synchronize(device)
            seconds.append((time.perf_counter() - start) / products)
    return size**3 / min(seconds)


@contextmanager
def rounded_as_convolutions() -> Iterator[None]:
    """Use the precision of CUDA's float32 convolutions, TF32 by default, for matrix products too."""
    backends: Any = torch.backends
    products, before = backends.cuda.matmul, backends.cuda.matmul.fp32_precision
    products.fp32_precision = backends.cudnn.conv.fp32_precision
    try:
        yield
    finally:
        products.fp32_precision = before


def median_seconds(run: Any, repeats: int) -> float:
    """Median wall time of calls, after a warm-up call."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
