"""Recipes of fine-tuning: learning rates, distillation and the like, for the same pruned networks.

    python experiments/benchmarks/recipes.py --data cifar10 --weights cifar10_resnet20.pt --epochs 8 \
        --candidates experiments/results/compare_cifar10_resnet20_front/agent-macs0.3-multiple8-seed0.json \
        --recipes '{"learning_rate": 0.05}' '{"learning_rate": 0.05, "distillation_weight": 0.9}' \
        --folder experiments/results/recipes

Each file of `--candidates` is the JSON of a row of `compare`, of which the widths are read. The network is pruned to
these, repaired by `refit` on 1,024 training images, fine-tuned by each recipe (fields of `TrainingOptions`), with each
seed, and tested after the last epoch on the even test images (the development half, on which recipes are chosen) and on
the odd ones (the final half). There is one JSON file per training; trainings with a file are not repeated. At the end a
table shows every recipe and its difference from the first one, paired by candidate and seed, with 95 % intervals.
With `--scratch`, networks of the same widths start from random weights instead: what the widths alone are worth.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import gnnrl_lightning
from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.data import ImageFolder, ImageSet
from gnnrl_lightning.networks import load_weights
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.objective import Classification
from gnnrl_lightning.report.paired import paired_difference
from gnnrl_lightning.speed.machine import machine
from gnnrl_lightning.surgery.layers import kept_inputs
from gnnrl_lightning.training.distillation import Teacher
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.training.train import figures, train

HALVES = "development", "final"
CALIBRATION = 1024


class Benchmark:
    """The dense network and its images.

    Args:
        data: The images.
        network: Name in gnnrl_lightning.networks.
        weights: Weights file.
    """

    def __init__(self, data: ImageFolder, network: str, weights: str) -> None:
        self.data, self.name, self.goal = data, network, Classification()
        self.dense = NetworkSpec(network).build()
        load_weights(self.dense, weights)
        self.dense.eval()
        self.graph = gnnrl_lightning.trace(self.dense, data.calibration(1))
        calibration = data.calibration(CALIBRATION)
        self.pruner = Pruner(self.graph, self.dense, calibration, "l2").final(calibration, "refit")
        test = data.test.in_memory()
        assert isinstance(test, ImageSet)
        every = torch.arange(len(test))
        self.halves = {half: test.subset(every[first::2]) for first, half in enumerate(HALVES)}

    def measure(self, widths: Sequence[int], recipe: Mapping[str, Any], seed: int, scratch: bool) -> dict[str, Any]:
        """Figures of one training."""
        plan, options = self.pruner.plan(torch.tensor(widths)), TrainingOptions(**recipe)
        torch.manual_seed(seed)
        network = plan.apply(NetworkSpec(self.name).build().eval()) if scratch else self.pruner.prune(plan)
        before, macs = self.tested(network), self.graph.cost.macs
        kept = kept_inputs(self.graph, plan.selection) if options.distillation == "features" else {}
        teacher = Teacher(copy.deepcopy(self.dense), kept)
        start = time.thread_time(), time.perf_counter()
        epochs = train(network, self.data, options, self.goal, seed=seed, teacher=teacher)
        spent = time.thread_time() - start[0], time.perf_counter() - start[1]
        return {
            "widths": list(widths),
            "macs_ratio": int(macs(plan.widths)) / int(macs(self.graph.widths)),
            "recipe": dict(recipe),
            "seed": seed,
            "scratch": scratch,
            "before": before,
            "after": self.tested(network),
            "holdout_epochs": [epoch["top1"] for epoch in epochs],
            "processor_seconds": spent[0],
            "seconds": spent[1],
            "machine": machine(torch.device("cpu")),
        }

    def tested(self, network: torch.nn.Module) -> dict[str, float]:
        """Top-1 by half of the test images."""
        return {half: figures(network, images, self.data, self.goal)["top1"] for half, images in self.halves.items()}


def report(rows: Sequence[Mapping[str, Any]], first: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Means of every recipe, and differences from the first one, paired by widths and seed."""
    table, base = [], _after(rows, first)
    for text in dict.fromkeys(json.dumps(row["recipe"], sort_keys=True) for row in rows):
        recipe = json.loads(text)
        own = _after(rows, recipe)
        entry: dict[str, Any] = {"recipe": recipe, "trainings": len(own)}
        seconds = [row["processor_seconds"] for row in rows if row["recipe"] == recipe]
        entry["processor_seconds"] = sum(seconds) / len(seconds)
        for half in HALVES:
            places = {place: number for number, place in enumerate(own)}
            paired = {number: base[place][half] for place, number in places.items() if place in base}
            difference = paired_difference({number: own[place][half] for place, number in places.items()}, paired)
            entry[half] = {"mean": sum(each[half] for each in own.values()) / len(own)}
            if difference is not None and recipe != first:
                entry[half] |= {"minus_first": difference.mean, "low": difference.low, "high": difference.high}
        table.append(entry)
    return table


def _after(rows: Sequence[Mapping[str, Any]], recipe: Mapping[str, Any]) -> dict[tuple[Any, ...], dict[str, float]]:
    return {(*row["widths"], row["seed"]): row["after"] for row in rows if row["recipe"] == recipe}


def main() -> None:
    """Train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="DIR", required=True, help="image folder with train/ and test/")
    parser.add_argument("--weights", metavar="FILE", required=True, help="weights of the dense network")
    parser.add_argument("--network", default="resnet20", help="one of gnnrl_lightning.networks (default resnet20)")
    parser.add_argument("--candidates", type=Path, nargs="+", metavar="FILE", help="rows of compare")
    parser.add_argument("--recipes", type=json.loads, nargs="+", metavar="JSON", help="fields of TrainingOptions")
    parser.add_argument("--epochs", type=int, default=10, help="of each training (default 10)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="(default 0)")
    parser.add_argument("--scratch", action="store_true", help="begin with random weights")
    parser.add_argument("--precision", choices=("32", "bf16"), default="bf16", help="(default bf16)")
    parser.add_argument("--folder", type=Path, required=True, help="folder of the JSON files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    data = ImageFolder(options.data, holdout_size=1000, pad=4, flip=True)
    data.setup()
    benchmark = Benchmark(data, options.network, options.weights)
    common = {"epochs": options.epochs, "precision": options.precision, "channels_last": True}
    recipes = [common | recipe for recipe in options.recipes]
    for seed in options.seeds:
        for recipe in recipes:
            for candidate in options.candidates:
                start = "scratch," if options.scratch else ""
                path = options.folder / f"{candidate.stem}-{start}{_name(recipe)}-seed{seed}.json"
                if not path.exists():
                    widths = json.loads(candidate.read_text())["widths"]
                    row = benchmark.measure(widths, recipe, seed, options.scratch)
                    path.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
                    print(path.stem, row["before"], row["after"], f"{row['seconds']:.0f} s", flush=True)
    rows = [json.loads(path.read_text()) for path in sorted(options.folder.glob("*-seed*.json"))]
    rows = [row for row in rows if row.get("scratch", False) == options.scratch]
    for entry in report(rows, recipes[0]):
        print(json.dumps(entry))


def _name(recipe: Mapping[str, Any]) -> str:
    return ",".join(f"{field}={value}" for field, value in recipe.items())


if __name__ == "__main__":
    main()
