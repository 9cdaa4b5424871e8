"""One search over a range of budgets, against dynamic programming and uniform pruning at each of them.

    python experiments/benchmarks/front.py --network resnet20 --checkpoint FILE --images FOLDER --budget 0.5 \
        --json experiments/results/front_resnet20.json --figure experiments/results/front_resnet20.png

The agent searches the range 20 to 80 % of the MACs once for each seed; all its evaluations, those of the sensitivity
included, are shared by the seven budgets for which it names a candidate. Candidates are repaired and ranked as in
`compare_cifar10_resnet20.yaml`; the figures are top-1 before fine-tuning, after the repair of delivered networks, on
one half of the test images (the odd ones, the final half; `--half even` is for development). Differences are means over
the seven budgets, paired by seed, with 95 % confidence intervals. Finished seeds in the JSON file are not repeated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import torch
from matplotlib.figure import Figure
from one_problem import arguments
from torch import Tensor

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import ImageFolder
from gnnrl_lightning.evaluation.options import ScoringOptions
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.compare_options import HALVES
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.job.searching import search
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.job.trained import Trained, train
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.report.paired import paired_difference
from gnnrl_lightning.rl.env.options import EpisodeOptions
from gnnrl_lightning.rl.learners import GNNRL
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.search.baselines import FROM_SENSITIVITY, uniform
from gnnrl_lightning.search.options import SearchOptions
from gnnrl_lightning.speed.machine import machine

SETTINGS = "network", "arguments", "budget", "range", "evaluations", "holdout", "half"
OTHERS = "dynamic_programming", "greedy", "uniform"


def load(args: argparse.Namespace) -> Trained:
    """The trained network, and how it is searched."""
    torch.set_num_threads(args.threads)
    data = ImageFolder(args.images, name="cifar10", holdout_size=args.holdout)
    options = Options(
        scoring=ScoringOptions(precision="auto"),
        episode=EpisodeOptions(macs_range=tuple(args.range)),
        search=SearchOptions(evaluations=args.evaluations),
    )
    task = Task(NetworkSpec(args.network, args.arguments), data, args.checkpoint)
    return train(check(task, Budget(macs=args.budget), options))


class Half:
    """Top-1 of delivered networks on one half of the test images, in percent."""

    def __init__(self, trained: Trained, half: str) -> None:
        test = trained.job.task.data.test
        self.trained, self.test = trained, test.subset(torch.arange(len(test))[HALVES[half]])

    def __call__(self, widths: Tensor) -> float:
        """Prune, repair and test."""
        pruner = self.trained.final_pruner
        return self.trained.job.task.figures(pruner.prune(pruner.plan(widths)), self.test)["top1"]


def of_others(trained: Trained, half: Half) -> dict[str, dict[str, float]]:
    """Top-1 of the methods without a search: method -> budget -> percent."""
    job, found = trained.job, dict[str, dict[str, float]]()
    for share in job.options.episode.shares:
        limits = job.limits.with_limits(macs=share)
        widths = {name: find(job.graph, limits, trained.sensitivity) for name, find in FROM_SENSITIVITY.items()}
        for name, row in (widths | {"uniform": uniform(job.graph, limits)}).items():
            found.setdefault(name, {})[str(share)] = half(row)
    return found


def of_agent(trained: Trained, half: Half, seed: int) -> dict[str, Any]:
    """One search over the range: its cost, and budget -> top-1 and widths."""
    with TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        run.checkpoints.mkdir()
        searched = search(trained, GNNRL(seed=seed), run)
    front = {
        str(share): {"top1": half(torch.tensor(item.widths)), "widths": list(item.widths)}
        for share, item in searched.front.items()
    }
    return {"seed": seed, "evaluations": searched.evaluations, "seconds": round(searched.seconds, 1), "front": front}


def summary(others: Mapping[str, Mapping[str, float]], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means by budget, and differences paired by seed, of each budget and of their mean: the agent minus each other."""
    shares = list(others["uniform"])
    by = {share: {row["seed"]: row["front"][share]["top1"] for row in rows} for share in shares}
    by["mean"] = {row["seed"]: fmean(row["front"][share]["top1"] for share in shares) for row in rows}
    minus = {}
    for name in OTHERS:
        theirs = {**others[name], "mean": fmean(others[name].values())}
        found = {share: paired_difference(mine, theirs[share]) for share, mine in by.items()}
        minus[name] = {share: asdict(each) for share, each in found.items() if each is not None}
    return {"agent": {share: round(fmean(mine.values()), 2) for share, mine in by.items()}, "minus": minus}


def draw(record: Mapping[str, Any], path: Path) -> None:
    """Plot top-1 over the budget, one line for each method."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    shares = [float(share) for share in record["others"]["uniform"]]
    agent = record["summary"]["agent"]
    axes.plot(shares, [agent[str(share)] for share in shares], color="tab:blue", label="one search by the agent")
    for row in record["rows"]:
        axes.scatter(shares, [each["top1"] for each in row["front"].values()], color="tab:blue", s=12)
    for name, colour in (("dynamic_programming", "tab:orange"), ("uniform", "tab:gray")):
        label = name.replace("_", " ")
        axes.plot(shares, list(record["others"][name].values()), "o-", ms=3, color=colour, label=label)
    axes.set(xlabel="MACs kept", ylabel="top-1 before fine-tuning, %")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def write(record: Mapping[str, Any], path: Path | None) -> None:
    """Write the figures so far."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Search, test and print."""
    parser = arguments(__doc__)
    parser.add_argument("--range", type=float, nargs=2, default=[0.2, 0.8], help="share of the MACs (default 0.2 0.8)")
    parser.add_argument("--evaluations", type=int, default=80, help="evaluations of a search (default 80)")
    parser.add_argument("--holdout", type=int, default=2000, help="held-out images (default 2000)")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2), help="seeds of the searches")
    parser.add_argument("--half", choices=HALVES, default="odd", help="half of the test images (default odd)")
    parser.add_argument("--figure", type=Path, help="image file of the plot")
    args = parser.parse_args()
    named = {key: getattr(args, key) for key in SETTINGS}
    record: dict[str, Any] = {"settings": named}
    if args.json is not None and args.json.exists():
        record = json.loads(args.json.read_text(encoding="utf-8"))
    if record["settings"] != named:
        raise SystemExit(f"{args.json} has other settings: {record['settings']}")
    trained = load(args)
    half = Half(trained, args.half)
    rows = record.setdefault("rows", [])
    if "others" not in record:
        record["others"] = of_others(trained, half)
        write(record, args.json)
    for seed in args.seeds:
        if seed not in [row["seed"] for row in rows]:
            rows.append(of_agent(trained, half, seed))
        record |= {"summary": summary(record["others"], rows), "machine": machine(trained.job.runtime.device)}
        write(record, args.json)
        print(seed, json.dumps(record["summary"]["agent"]), flush=True)
    print(json.dumps(record["summary"], indent=1))
    if args.figure is not None:
        draw(record, args.figure)


if __name__ == "__main__":
    main()
