"""Forward passes of candidates, of the dense network, and of candidates that fill whole registers.

Vector units multiply 16 float32 channels at a time; unused lanes cost as much as used ones.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.evaluation.evaluator import Evaluator
from gnnrl_lightning.job.trained import Trained
from gnnrl_lightning.speed.inference import PRECISIONS, for_inference
from gnnrl_lightning.speed.rounds import synchronize
from speed_parts.candidates import chosen, recorded
from speed_parts.machine import matmul_peak

REGISTER = 16
"""Output channels that are computed at a time."""


def measure(trained: Trained, journal: Path, count: int, rows: int | None = None) -> dict[str, Any]:
    """Time forward passes over the holdout in both precisions.

    Args:
        trained: The network and its images.
        journal: Journal of the recorded search, see `recorded`.
        count: Number of timed candidates.
        rows: Rows of the matrices whose product defines the peak rate; None: enough to keep the device busy.

    Returns:
        For each precision, and for the dense network, the candidates (medians), and the candidates with widths rounded
        up to whole registers: `ms`, milliseconds per image, and `share`, relative to the peak rate.
    """
    graph, widths = trained.job.graph, recorded(trained, journal)
    narrow = widths[chosen(count, len(widths))]
    full = torch.minimum((narrow + REGISTER - 1) // REGISTER * REGISTER, graph.widths)
    candidates = {"dense": graph.widths[None], "candidates": narrow, "rounded_up": full}
    found = {}
    for precision in PRECISIONS:
        evaluator = trained.evaluator()
        evaluator.dtype = PRECISIONS[precision]
        found[precision] = {}
        for name, each in candidates.items():
            timed = [forward(evaluator, row, rows) for row in each]
            milliseconds, shares = (statistics.median(column) for column in zip(*timed, strict=True))
            found[precision][name] = {"ms": round(milliseconds, 4), "share": round(shares, 3)}
    return found


def forward(evaluator: Evaluator, widths: Tensor, rows: int | None = None) -> tuple[float, float]:
    """Milliseconds per image and share of the peak rate for a network's passes over the holdout."""
    pruner, device = evaluator.pruner, evaluator.pruner.device
    network = for_inference(pruner.prune(pruner.plan(widths)), pruner.layers, evaluator.dtype)
    with torch.inference_mode():
        network(evaluator.batches[0][0].to(device))
        synchronize(device)
        start = time.perf_counter()
        for inputs, _ in evaluator.batches:
            network(inputs.to(device))
        synchronize(device)
        seconds = (time.perf_counter() - start) / len(evaluator.holdout)
    rate = int(pruner.graph.cost.macs(widths)) / seconds
    return 1000 * seconds, rate / matmul_peak(evaluator.dtype, device, rows)
