"""What the machine can do: its processor, and how fast it multiplies matrices."""

from __future__ import annotations

import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from gnnrl_lightning.evaluation.latency import synchronize

FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8")
SIZE = 2048


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
        "threads": torch.get_num_threads(),
        "cpu_features": [name for name in FEATURES if name in flags],
    }


def matmul_peak(dtype: torch.dtype, device: torch.device, repeats: int = 9) -> float:
    """Multiply-accumulates a second of a square matrix product, the best of several."""
    left, right = (torch.randn(SIZE, SIZE, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        left @ right
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return SIZE**3 / min(seconds)


def median_seconds(run: Any, repeats: int) -> float:
    """Median wall time of calls, after one that does not count."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
