"""Peak memory of processes."""

from __future__ import annotations

import resource
import time
from typing import Any

import torch

from gnnrl_lightning.job.trained import Trained
from gnnrl_lightning.networks.spec import NetworkSpec
from speed_parts.jobs import RandomImages, bf16, job, random_widths


def peaks(device: torch.device) -> dict[str, float]:
    """Peak memory of this process and of the CUDA device, in GiB (Linux counts kilobytes)."""
    found = {"peak_rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)}
    if device.type == "cuda":
        found["peak_gpu_gib"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
    return found


def resnet50(images: int, side: int, device: str, **options: Any) -> Trained:
    """ResNet-50 on images of ImageNet's size, without a sensitivity.

    Args:
        images: Images in the holdout.
        side: Height and width of the images, in pixels.
        device: Device on which candidates are scored.
        **options: Options of `bf16`.
    """
    data = RandomImages(images, side, 1000, eval_batch_size=100)
    network = NetworkSpec("torchvision.models.resnet50")
    return job(network, data, bf16(**options), device=device)


def evaluation(images: int, side: int, candidates: int, device: str, **options: Any) -> dict[str, Any]:
    """Calibrate, and evaluate a few candidates."""
    trained = resnet50(images, side, device, **options)
    evaluator = trained.evaluator()
    seconds = [evaluator(widths, "random").seconds for widths in random_widths(trained, candidates)]
    found = {"images": images, "side": side, "seconds_per_candidate": round(min(seconds), 2)}
    return found | peaks(trained.job.runtime.device)


def delivery(images: int, side: int, final_images: int | None, device: str, **options: Any) -> dict[str, Any]:
    """Evaluate a candidate, to hold the memory of a search, then prune and repair the delivered network."""
    trained = resnet50(images, side, device, final_images=final_images, **options)
    evaluator, widths = trained.evaluator(), random_widths(trained, 1)[0]
    evaluator(widths, "random")
    start, pruner = time.perf_counter(), trained.final_pruner
    pruner.prune(pruner.plan(widths))
    seconds = time.perf_counter() - start
    read = len(pruner.calibration)
    found = {"images": images, "side": side, "calibration_images": read, "seconds": round(seconds, 2)}
    return found | peaks(trained.job.runtime.device)
