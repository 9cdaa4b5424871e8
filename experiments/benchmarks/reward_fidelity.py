"""Rank correlation between scores of a pruned network before fine-tuning and its accuracy after it.

    python experiments/benchmarks/reward_fidelity.py --data cifar10 --weights cifar10_resnet20.pt \
        --folder experiments/results/reward_fidelity
    python experiments/benchmarks/reward_fidelity.py --folder experiments/results/reward_fidelity --report
    python experiments/benchmarks/reward_fidelity.py --data cifar10 --weights cifar10_resnet56.pt --network resnet56 \
        --journals experiments/results/recorded_search.jsonl --candidates 40 --steps 0 --proxy-steps \
        --folder experiments/results/repair_fidelity
    python experiments/benchmarks/reward_fidelity.py --data cifar10 --weights cifar10_resnet20.pt --budget 0.15 \
        --journals runs/compare/*.jsonl --best 0.33 --candidates 16 --proxy-steps 100 300 \
        --folder experiments/results/reward_fidelity_0.15

ResNet-20 on CIFAR-10 (an image folder of 32 x 32 images), half of the MACs or `--budget`. Candidates from the whole
space, including the starting candidates of a search, are repaired in several ways, trained for zero or a few steps, and
scored on the holdout: top-1, cross-entropy, and the softened divergence from the dense network's outputs. Each
such score is called a proxy here. Each candidate is then fine-tuned for 1,900 steps of batch size 128, with a seed and
data order that no proxy uses, and tested. `--report` prints, for each proxy, Kendall's tau with the fine-tuned
accuracy, its bootstrap interval (5 to 95 %) and the seconds per candidate, and writes them to report.json: on the even
test images (the development half, used to choose the default reward) and on the odd ones (the final half). There is one
JSON file per candidate; candidates with a file are not measured again.

The third command finds the repair that best predicts accuracy without fine-tuning: `--steps 0` tests each candidate
after `refit`, and `--journals` takes candidates evenly from a recorded search. The last one asks what tells good
candidates apart: `--best` takes the best share of the candidates of several searches, and of these the most different
ones.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor, nn

import gnnrl_lightning
from gnnrl_lightning import ComputationGraph
from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.candidates.short_finetune import ShortFinetune
from gnnrl_lightning.cost.budget import BoundBudget, Budget
from gnnrl_lightning.data import ImageFolder, ImageSet
from gnnrl_lightning.networks import load_weights
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.objective import Classification
from gnnrl_lightning.search.baselines import starting_candidates
from gnnrl_lightning.seeds import generator_for
from gnnrl_lightning.speed.inference import for_inference

REPAIRS = ("none", "predicted_batch_norm", "batch_norm", "reconstruction", "refit")
TRAINED_FROM = "refit"
FULL_SEED = 1000
CALIBRATION = 1024
SCORES = ("top1", "cross_entropy", "divergence")
SPREADS = (0.15, 0.3, 0.5, 0.8)
BOOTSTRAPS = 2000


def candidates(graph: ComputationGraph, limits: BoundBudget, count: int) -> dict[str, Tensor]:
    """Name -> widths: the starting candidates, then log-normal keep ratios around uniform with growing spread."""
    found = starting_candidates(graph, limits)
    for number in range(count - len(found)):
        spread = SPREADS[number % len(SPREADS)]
        noise = torch.randn(len(graph.groups), generator=generator_for(number))
        found[f"random{number}"] = limits.project(graph.widths * torch.exp(spread * noise))
    return found


def recorded(paths: Sequence[Path], count: int, best: float | None) -> dict[str, Tensor]:
    """Name -> widths: distinct candidates from the journals of searches.

    Args:
        paths: The journals.
        count: Number of candidates.
        best: Share of the candidates, those with the least divergence, from which the most different ones are taken;
            None: they are evenly spaced in the order of the searches.
    """
    lines = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    found = {tuple(line["widths"]): line["scores"].get("divergence", 0.0) for line in lines}
    if best is None:
        widths = list(found)
        chosen = np.unique(np.linspace(0, len(widths) - 1, count).round().astype(int)).tolist()
    else:
        widths = sorted(found, key=found.__getitem__)[: max(count, round(best * len(found)))]
        chosen = most_different(torch.tensor(widths, dtype=torch.float64).log(), count)
    return {f"recorded{number}": torch.tensor(widths[number]) for number in chosen}


def most_different(points: Tensor, count: int) -> list[int]:
    """Rows of `points (n, G)`: the first one, then always the one that is farthest from those taken, in order."""
    taken = [0]
    while len(taken) < min(count, len(points)):
        taken.append(int(torch.cdist(points, points[taken]).min(1).values.argmax()))
    return sorted(taken)


class Benchmark:
    """The network, its images and the proxies.

    Args:
        data: The images.
        network: Name in gnnrl_lightning.networks.
        weights: Weights file.
        precision: Precision of training and scoring.
        steps: Steps of fine-tuning; 0: none.
        proxy_steps: Training steps before scoring, one proxy for each number.
    """

    def __init__(
        self, data: ImageFolder, network: str, weights: str, precision: str, steps: int, proxy_steps: Sequence[int]
    ) -> None:
        self.data, self.precision, self.steps, self.proxy_steps = data, precision, steps, proxy_steps
        self.network = NetworkSpec(network).build()
        load_weights(self.network, weights)
        self.network.eval()
        self.graph = gnnrl_lightning.trace(self.network, data.calibration(1))
        self.goal = Classification()
        calibration = data.calibration(CALIBRATION)
        first = Pruner(self.graph, self.network, calibration, "l2")
        self.pruners = {repair: first.final(calibration, repair) for repair in REPAIRS}
        for pruner in self.pruners.values():
            for name in ("scores", *sorted(pruner.passes)):  # computed once, not part of a candidate's time
                getattr(pruner, name)
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.dense = self.logits(copy.deepcopy(self.network), data.holdout)
        test = data.test.in_memory()
        assert isinstance(test, ImageSet)
        every = torch.arange(len(test))
        self.halves = {"development": test.subset(every[::2]), "final": test.subset(every[1::2])}

    def logits(self, network: nn.Module, images: ImageSet) -> Tensor:
        """Outputs of a network, which is optimised for inference in place."""
        fast = for_inference(network.eval(), self.pruners[TRAINED_FROM].layers, self.dtype)
        with torch.inference_mode():
            batches = images.images.split(250)
            layout = {"dtype": self.dtype, "memory_format": torch.channels_last}
            return torch.cat([fast(self.data.normalize(batch).to(**layout)).float() for batch in batches])

    def score(self, network: nn.Module) -> dict[str, float]:
        """Scores on the holdout."""
        labels = self.data.holdout.labels
        logits = self.logits(copy.deepcopy(network), self.data.holdout)
        divergence = self.goal.distance(logits, self.dense).sum() / len(logits)
        return {
            "top1": 100 * float((logits.argmax(1) == labels).float().mean()),
            "cross_entropy": float(nn.functional.cross_entropy(logits, labels)),
            "divergence": float(divergence),
        }

    def train(self, network: nn.Module, steps: int, seed: int) -> None:
        """Train a network in place."""
        data = self.data
        options = {"batch_size": 128, "seed": seed, "precision": self.precision}
        ShortFinetune(data.train, data.augment, data.normalize, self.goal, steps, **options)(network)

    def measure(self, name: str, widths: Tensor) -> dict[str, Any]:
        """Measure a candidate."""
        plan = self.pruners[TRAINED_FROM].plan(widths)
        proxies: dict[str, Any] = {}
        made: dict[str, nn.Module] = {}
        for repair, pruner in self.pruners.items():
            start = time.perf_counter()
            made[repair] = pruner.prune(plan)
            scores = self.score(made[repair])
            proxies[repair] = scores | {"seconds": time.perf_counter() - start}
        for steps in self.proxy_steps:
            start = time.perf_counter()
            network = copy.deepcopy(made[TRAINED_FROM])
            self.train(network, steps, steps)
            scores = self.score(network)
            seconds = time.perf_counter() - start
            # the repair that training starts from takes its time too
            proxies[f"{steps} steps"] = scores | {"seconds": seconds + proxies[TRAINED_FROM]["seconds"]}
        network = copy.deepcopy(made[TRAINED_FROM])
        start = time.perf_counter()
        if self.steps:
            self.train(network, self.steps, FULL_SEED)
        seconds = time.perf_counter() - start
        tested = {}
        for half, images in self.halves.items():
            guess = self.logits(copy.deepcopy(network), images).argmax(1)
            tested[half] = 100 * float((guess == images.labels).float().mean())
        cost = self.graph.cost
        return {
            "candidate": name,
            "widths": widths.tolist(),
            "macs_ratio": int(cost.macs(widths)) / int(cost.macs(self.graph.widths)),
            "proxies": proxies,
            "finetuned": tested,
            "finetuning": {"steps": self.steps, "seconds": seconds, "precision": self.precision},
            "threads": torch.get_num_threads(),
            "versions": {"torch": torch.__version__, "gnnrl_lightning": gnnrl_lightning.__version__},
        }


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Kendall's tau."""
    found: Any = kendalltau(first, second)
    return float(found.statistic)


def report(folder: Path) -> dict[str, Any]:
    """Kendall's tau of every proxy with the fine-tuned accuracy, with bootstrap intervals."""
    rows = [json.loads(path.read_text()) for path in sorted(folder.glob("candidate_*.json"))]
    draws = np.random.default_rng(0).integers(len(rows), size=(BOOTSTRAPS, len(rows)))
    table = []
    for proxy in rows[0]["proxies"]:
        for score in SCORES:
            sign = 1 if score == "top1" else -1
            values = np.array([sign * row["proxies"][proxy][score] for row in rows])
            entry: dict[str, Any] = {"proxy": proxy, "score": score}
            entry["seconds"] = round(float(np.median([row["proxies"][proxy]["seconds"] for row in rows])), 2)
            for half in ("development", "final"):
                truth = np.array([row["finetuned"][half] for row in rows])
                taus = [rank_correlation(values[draw], truth[draw]) for draw in draws]
                low, high = np.nanpercentile(taus, [5, 95])
                tau = rank_correlation(values, truth)
                entry[half] = {"tau": round(tau, 3), "low": round(float(low), 3), "high": round(float(high), 3)}
            table.append(entry)
    best = max(table, key=lambda entry: entry["development"]["tau"])
    inside = [entry for entry in table if entry["development"]["tau"] >= best["development"]["low"]]
    chosen = min(inside, key=lambda entry: (entry["seconds"], -entry["development"]["tau"]))
    return {
        "candidates": len(rows),
        "finetuned_top1": {
            half: sorted(round(row["finetuned"][half], 2) for row in rows) for half in ("development", "final")
        },
        "best": {"proxy": best["proxy"], "score": best["score"]},
        "cheapest_within_best": {"proxy": chosen["proxy"], "score": chosen["score"]},
        "table": table,
    }


def show(found: dict[str, Any]) -> None:
    """Print the table."""
    print(f"{found['candidates']} candidates\n")
    print("| proxy | score | tau, development half | tau, final half | seconds a candidate |\n|---|---|---|---|---|")
    for entry in found["table"]:
        cells = [
            f"{entry[half]['tau']:.2f} ({entry[half]['low']:.2f} to {entry[half]['high']:.2f})"
            for half in ("development", "final")
        ]
        print(f"| {entry['proxy']} | {entry['score']} | {cells[0]} | {cells[1]} | {entry['seconds']:.2f} |")
    print(f"\nbest: {found['best']}; the cheapest inside its interval: {found['cheapest_within_best']}")


def main() -> None:
    """Measure, or report earlier measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="DIR", help="image folder with train/ and test/")
    parser.add_argument("--weights", metavar="FILE", help="weights of the dense network")
    parser.add_argument("--network", default="resnet20", help="one of gnnrl_lightning.networks (default resnet20)")
    parser.add_argument("--budget", type=float, default=0.5, help="share of the MACs (default 0.5)")
    parser.add_argument("--journals", type=Path, nargs="*", metavar="FILE", help="searches to take candidates from")
    parser.add_argument("--best", type=float, metavar="SHARE", help="take them from this share, the best ones")
    parser.add_argument("--steps", type=int, default=1900, help="steps of fine-tuning (default 1900)")
    parser.add_argument("--proxy-steps", type=int, nargs="*", default=[30, 100, 300], help="(default 30 100 300)")
    parser.add_argument("--folder", type=Path, required=True, help="folder of the JSON files")
    parser.add_argument("--candidates", type=int, default=24, help="number of candidates (default 24)")
    parser.add_argument("--precision", choices=("32", "bf16"), default="bf16", help="precision of training and scoring")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: all)")
    parser.add_argument("--report", action="store_true", help="only print the table of existing results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.folder.mkdir(parents=True, exist_ok=True)
    if not options.report:
        if options.data is None or options.weights is None:
            parser.error("expected --data and --weights, or --report")
        data = ImageFolder(options.data, holdout_size=5000)
        data.setup()
        proxies = options.steps, options.proxy_steps
        benchmark = Benchmark(data, options.network, options.weights, options.precision, *proxies)
        if options.journals is None:
            limits = Budget(macs=options.budget).on(benchmark.graph)
            chosen = candidates(benchmark.graph, limits, options.candidates)
        else:
            chosen = recorded(options.journals, options.candidates, options.best)
        for name, widths in chosen.items():
            path = options.folder / f"candidate_{name}.json"
            if not path.exists():
                row = benchmark.measure(name, widths)
                path.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
                print(name, row["finetuned"], {k: round(v["top1"], 2) for k, v in row["proxies"].items()}, flush=True)
    found = report(options.folder)
    (options.folder / "report.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    show(found)


if __name__ == "__main__":
    main()
