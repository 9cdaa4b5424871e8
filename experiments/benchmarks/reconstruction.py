"""Accuracy of CIFAR-10 ResNet-56 before fine-tuning, for every importance and repair.

    python experiments/benchmarks/reconstruction.py --data cifar10 --weights cifar10_resnet56.pt \
        --json experiments/results/reconstruction.json

The width of the first convolution in every block is halved (50 % of the MACs). DIR is an image folder (train/, test/)
of 32 x 32 images; FILE contains weights of `gnnrl_lightning.networks.resnet56`. Figures are top-1 in percent on the
even test images, which were used to develop the methods, and on the odd ones, which were reserved for this table.
Calibration uses training images. Seconds are processor seconds of all threads (`time.process_time`), which exclude
other jobs on the machine. Rows are written as they finish, and rows that are already in the JSON file are not measured
again.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning import ComputationGraph
from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.data import ImageFolder
from gnnrl_lightning.importance import IMPORTANCES
from gnnrl_lightning.networks import load_weights, resnet56
from gnnrl_lightning.objective import Classification
from gnnrl_lightning.repair.batchnorm import reestimate_batch_norm
from gnnrl_lightning.repair.reconstruction import reconstruct
from gnnrl_lightning.repair.table import REPAIRS as TABLE
from gnnrl_lightning.surgery.plan import Plan
from gnnrl_lightning.training.train import figures

Repair = Callable[[Pruner, Plan], nn.Module]


def by_name(repair: str) -> Repair:
    """A repair from the package."""

    def run(pruner: Pruner, plan: Plan) -> nn.Module:
        pruned = plan.apply(pruner.network).eval()
        TABLE.find(repair).apply(pruner, pruned, plan.selection)
        return pruned

    return run


def reconstruct_only(pruner: Pruner, plan: Plan) -> nn.Module:
    """Reconstruction with the dense network's running variances."""
    pruned = plan.apply(pruner.network).eval()
    reconstruct(pruner.network, pruned, pruner.layers, pruner.moments, plan.selection)
    return pruned


def then_batch_norm(first: Repair) -> Repair:
    """A repair, followed by re-estimating the batch norms on the calibration images."""

    def run(pruner: Pruner, plan: Plan) -> nn.Module:
        pruned = first(pruner, plan)
        reestimate_batch_norm(pruned, pruner.batches())
        return pruned

    return run


REPAIRS: dict[str, Repair] = {
    "none": by_name("none"),
    "predicted batch norm": by_name("predicted_batch_norm"),
    "batch norm": by_name("batch_norm"),
    "reconstruction without batch norm": reconstruct_only,
    "reconstruction, batch norm from images": then_batch_norm(reconstruct_only),
    "reconstruction": by_name("reconstruction"),
    "refit, batch norm from images": then_batch_norm(by_name("refit")),
    "refit": by_name("refit"),
}
IN_FULL = ("l2", "surgeon")
SHORT = ("reconstruction", "refit")


def timed(repeats: int, run: Callable[[], Any]) -> tuple[Any, float]:
    """The result, and the median processor seconds."""
    seconds = []
    result = None
    for _ in range(repeats):
        start = time.process_time()
        result = run()
        seconds.append(time.process_time() - start)
    return result, statistics.median(seconds)


class Benchmark:
    """The network, its images and the rows measured so far."""

    def __init__(self, data: ImageFolder, weights: str, repeats: int, path: Path | None) -> None:
        self.data, self.repeats, self.path = data, repeats, path
        self.network = resnet56()
        load_weights(self.network, weights)
        self.network.eval()
        self.graph: ComputationGraph = gnnrl_lightning.trace(self.network, data.calibration(1))
        groups = self.graph.groups
        self.widths = torch.tensor([g.width // (2 if g.name.endswith(".conv1") else 1) for g in groups])
        every = torch.arange(len(data.test))
        self.halves = {"development": data.test.subset(every[::2]), "final": data.test.subset(every[1::2])}
        cost = self.graph.cost
        self.record: dict[str, Any] = {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "macs_ratio": int(cost.macs(self.widths)) / int(cost.macs(self.graph.widths)),
            "test_images": {name: len(half) for name, half in self.halves.items()},
            "seconds_moments": {},
            "rows": [],
        }
        if path is not None and path.exists():
            self.record = json.loads(path.read_text(encoding="utf-8"))
        self.moments: dict[int, Any] = {}

    def known(self, importance: str, repair: str, images: int) -> dict[str, Any] | None:
        """A row from an earlier run."""
        key = (importance, repair, images)
        rows = self.record["rows"]
        return next((row for row in rows if (row["importance"], row["repair"], row["images"]) == key), None)

    def pruner(self, importance: str, images: int) -> Pruner:
        """A pruner; its moments are collected once per number of images."""
        pruner = Pruner(self.graph, self.network, self.data.calibration(images), importance)
        if images not in self.moments:
            self.moments[images], seconds = timed(1, lambda: pruner.moments)
            self.record["seconds_moments"].setdefault(str(images), round(seconds, 1))
        pruner.__dict__["moments"] = self.moments[images]
        return pruner

    def measure(self, importance: str, repairs: tuple[str, ...], images: int) -> None:
        """Measure several repairs for the channels chosen by one importance."""
        if any(self.known(importance, name, images) is None for name in repairs):
            pruner = self.pruner(importance, images)
            _, scoring = timed(1, lambda: pruner.scores)
            plan = pruner.plan(self.widths)
            for name in repairs:
                if self.known(importance, name, images) is None:
                    network, seconds = timed(self.repeats, lambda name=name: REPAIRS[name](pruner, plan))
                    self.add(importance, name, images, network, scoring, seconds)
        for name in repairs:
            self.show(importance, name, images)

    def dense(self) -> None:
        """Measure the dense network."""
        if self.known("", "dense", 0) is None:
            self.add("", "dense", 0, self.network, 0.0, 0.0)
        self.show("", "dense", 0)

    def add(
        self, importance: str, repair: str, images: int, network: nn.Module, scoring: float, seconds: float
    ) -> None:
        """Score a network and store its row."""
        fast = copy.deepcopy(network).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        row: dict[str, Any] = {"importance": importance, "repair": repair, "images": images}
        accuracies = {name: figures(fast, half, self.data, Classification()) for name, half in self.halves.items()}
        row |= {name: round(found["top1"], 2) for name, found in accuracies.items()}
        row |= {"seconds_scores": round(scoring, 2), "seconds_candidate": round(seconds, 2)}
        self.record["rows"].append(row)
        if self.path is not None:
            self.path.write_text(json.dumps(self.record, indent=1) + "\n", encoding="utf-8")

    def show(self, importance: str, repair: str, images: int) -> None:
        """Print a row."""
        row = self.known(importance, repair, images)
        assert row is not None
        print(
            f"| {importance} | {repair} | {images} | {row['development']:.2f} "
            f"| {row['final']:.2f} | {row['seconds_scores']:.1f} | {row['seconds_candidate']:.2f} |",
            flush=True,
        )


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DIR", help="image folder with train/ and test/")
    parser.add_argument("--weights", required=True, metavar="FILE", help="weights of the dense ResNet-56")
    parser.add_argument("--json", type=Path, metavar="FILE", help="JSON file of the results")
    parser.add_argument("--images", type=int, default=1024, help="calibration images (default 1024)")
    parser.add_argument(
        "--more-images",
        type=int,
        nargs="*",
        default=[256, 2048, 4096],
        help="more numbers, for l2 (default 256 2048 4096)",
    )
    parser.add_argument("--repeats", type=int, default=1, help="runs per repair, for the median time (default 1)")
    parser.add_argument("--threads", type=int, default=1, help="threads (default 1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = ImageFolder(options.data, eval_batch_size=500)
    data.setup()
    benchmark = Benchmark(data, options.weights, options.repeats, options.json)
    print("| importance | repair | images | development | final | scores, s | candidate, s |")
    print("|---|---|---|---|---|---|---|")
    benchmark.dense()
    for importance in IN_FULL:
        benchmark.measure(importance, tuple(REPAIRS), options.images)
    for images in options.more_images:
        benchmark.measure("l2", SHORT, images)
    for importance in IMPORTANCES:
        if importance not in IN_FULL:
            benchmark.measure(importance, SHORT[:1], options.images)
    print("\nseconds for the moments, by images:", benchmark.record["seconds_moments"])


if __name__ == "__main__":
    main()
