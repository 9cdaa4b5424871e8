"""Cost of an evaluation as a function of a network's depth, width and number of channel groups."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gnnrl_lightning.networks.spec import NetworkSpec
from speed_parts.jobs import RandomImages, bf16, job, random_widths

LAYERS, WIDTH = 8, 32
DEPTHS = (20, 32, 44, 56, 110)
WIDTHS = (16, 32, 64, 128)
GROUPS = (4, 8, 16, 32)


def _network(axis: str, value: int) -> NetworkSpec:
    if axis == "depth":
        return NetworkSpec(f"resnet{value}")
    sizes = {"layers": LAYERS, "width": value} if axis == "width" else {"layers": value, "width": WIDTH}
    return NetworkSpec("speed_parts.jobs.Chain", sizes)


def measure(axis: str, value: int, images: int, candidates: int, device: str, **options: Any) -> dict[str, Any]:
    """Evaluations per second of a network on the whole holdout."""
    data = RandomImages(images, 32, 10, eval_batch_size=250)
    trained = job(_network(axis, value), data, bf16(racing=False, **options), device=device)
    evaluator = trained.evaluator()
    seconds = []
    for widths in random_widths(trained, candidates + 1):
        start = time.perf_counter()
        evaluator(widths, "random")
        seconds.append(time.perf_counter() - start)
    cost = trained.job.graph.cost
    return {
        "axis": axis,
        "value": value,
        "groups": len(trained.job.graph.groups),
        "macs": int(cost.macs(trained.job.graph.widths)),
        "evaluations_per_s": round(1 / statistics.median(seconds[1:]), 3),
    }


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Evaluations per second along each axis."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    labels = {
        "depth": "depth of a CIFAR ResNet",
        "width": f"channels of each of {LAYERS} convolutions",
        "groups": f"channel groups, {WIDTH} channels each",
    }
    every = figure.subplots(1, len(labels))
    for axes, (axis, label) in zip(every, labels.items(), strict=True):
        points = [(row["value"], row["evaluations_per_s"]) for row in rows if row["axis"] == axis]
        axes.plot(*zip(*points, strict=True), marker="o")
        axes.set(xlabel=label, ylim=(0, None))
        axes.grid(alpha=0.3)
    every[0].set_ylabel("evaluations a second")
    figure.savefig(path, dpi=150)
