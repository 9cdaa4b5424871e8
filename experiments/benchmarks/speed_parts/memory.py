"""Memory: what a process has at most."""

from __future__ import annotations

import resource
from typing import Any

from gnnrl_lightning.networks.spec import NetworkSpec
from speed_parts.jobs import RandomImages, job, random_widths


def peak_rss_gib() -> float:
    """The most memory that this process has had, GiB (Linux counts kilobytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def imagenet(images: int, side: int, candidates: int, precision: str) -> dict[str, Any]:
    """ResNet-50 on images of ImageNet's size: calibration, table left out, and a few evaluations."""
    data = RandomImages(images, side, 1000, eval_batch_size=100)
    network = NetworkSpec("torchvision.models.resnet50")
    compression = job(network, data, table=None, precision=precision)
    evaluator = compression.make_evaluator()
    seconds = [evaluator(widths, "random").seconds for widths in random_widths(compression, candidates)]
    return {
        "images": images,
        "side": side,
        "seconds_per_candidate": round(min(seconds), 2),
        "peak_rss_gib": round(peak_rss_gib(), 2),
    }
