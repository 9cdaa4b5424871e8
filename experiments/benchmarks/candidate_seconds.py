"""Seconds of a candidate of CIFAR-10 ResNet-56 at half of its MACs: by default, and in the plain way.

    python experiments/benchmarks/candidate_seconds.py --data cifar10 --weights cifar10_resnet56.pt \
        --json experiments/results/candidate_seconds.json

By default a candidate is refitted on `default_calibration_examples` images and scored on `ScoringOptions.examples`; in
the plain way its batch norms are re-estimated on 256 images, and 1,000 are scored. Earlier versions refitted on 256 and
scored 1,000. Random candidates are pruned, repaired and run in all of these ways in turn, in float32 and in bfloat16.
Figures are medians of processor seconds of all threads (`time.process_time`), which exclude other jobs on the machine;
ratios are medians over the candidates.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from speed_parts.machine import processor

import gnnrl_lightning
from gnnrl_lightning.candidates.pruner import Pruner, default_calibration_examples
from gnnrl_lightning.data import ImageFolder
from gnnrl_lightning.evaluation.options import ScoringOptions
from gnnrl_lightning.networks import load_weights, resnet56
from gnnrl_lightning.speed.inference import for_inference
from gnnrl_lightning.surgery.layers import find_layers

SPREAD = 0.3
"""Standard deviation of the candidates' log keep ratios."""

BATCH = 128
"""Images in a forward pass."""


def main() -> None:
    """Time the candidates and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DIR", help="image folder with train/ and test/")
    parser.add_argument("--weights", required=True, metavar="FILE", help="weights of the dense ResNet-56")
    parser.add_argument("--json", type=Path, metavar="FILE", help="JSON file of the results")
    parser.add_argument("--candidates", type=int, default=9, help="number of candidates (default 9)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = ImageFolder(options.data, holdout_size=1000)
    data.setup()
    network = resnet56().eval()
    load_weights(network, options.weights)
    graph = gnnrl_lightning.trace(network, data.calibration(1))
    layers, generator = find_layers(graph), torch.Generator().manual_seed(0)
    scored = ScoringOptions().examples
    assert scored is not None
    ways = {
        "default": ("refit", default_calibration_examples(graph), scored),
        "plain": ("batch_norm", 256, 1000),
        "earlier": ("refit", 256, 1000),
    }
    noise = torch.randn(options.candidates + 1, len(graph.groups), generator=generator, dtype=torch.float64)
    first, *candidates = graph.project(graph.widths * (SPREAD * noise).exp().clamp(max=1), macs=0.5)
    found: dict[str, object] = {"torch": torch.__version__, "processor": processor(), "ways": ways}
    for dtype in (torch.float32, torch.bfloat16):
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        pruners = {
            way: Pruner(graph, network, data.calibration(images), repair=repair, dtype=dtype)
            for way, (repair, images, _) in ways.items()
        }
        for pruner in pruners.values():
            pruner.prune(pruner.plan(first))  # with what is computed once for all candidates
        for widths in candidates:
            for way, pruner in pruners.items():
                start = time.process_time()
                fast = for_inference(pruner.prune(pruner.plan(widths)), layers, dtype)
                with torch.inference_mode():
                    for images in data.normalize(data.holdout.inputs[: ways[way][2]]).split(BATCH):
                        fast(images.to(dtype, memory_format=torch.channels_last))
                seconds[way].append(time.process_time() - start)
        ratios = {
            way: statistics.median(own / plain for own, plain in zip(seconds[way], seconds["plain"], strict=True))
            for way in ways
        }
        medians = {way: round(statistics.median(each), 2) for way, each in seconds.items()}
        found[str(dtype)] = {"seconds": medians, "ratios": {way: round(ratio, 2) for way, ratio in ratios.items()}}
        print(dtype, found[str(dtype)], flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
