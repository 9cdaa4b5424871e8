"""What the machine can do: its processor, and how fast it multiplies matrices."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gnnrl_lightning.speed.latency import synchronize

FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8")
PRODUCTS = {"cpu": (2048, 1), "cuda": (8192, 10)}
"""Rows of the matrices, and products between two waits: of a few small ones a GPU's time would go to launches."""


def processor() -> dict[str, Any]:
    """Name, cores and the vector features that matter here."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in lines.items()}
    flags = fields.get("flags", "").split()
    return {
        "processor": fields.get("model name", platform.processor()),
        "cores": os.cpu_count(),
        "cpu_features": [name for name in FEATURES if name in flags],
    }


def matmul_peak(dtype: torch.dtype, device: torch.device, rows: int | None = None, repeats: int = 9) -> float:
    """Multiply-accumulates a second of a square matrix product, the best of several.

    Args:
        dtype: Of the matrices.
        device: Where they are multiplied.
        rows: Of the matrices; None for as many as keep the device busy.
        repeats: Products that are timed.
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
    """CUDA's products of float32 matrices round to what convolutions round to, TF32 unless that is changed."""
    backends: Any = torch.backends
    products, before = backends.cuda.matmul, backends.cuda.matmul.fp32_precision
    products.fp32_precision = backends.cudnn.conv.fp32_precision
    try:
        yield
    finally:
        products.fp32_precision = before


def median_seconds(run: Any, repeats: int) -> float:
    """Median wall time of calls, after one that does not count."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
