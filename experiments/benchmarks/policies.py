"""Trained policies without a search: one for all budgets, and one for a network not seen in training.

    python experiments/benchmarks/policies.py budgets --data cifar10 --weights cifar10_resnet56.pt \
        --json experiments/results/policy_budgets.json --figure experiments/results/policy_budgets.png
    python experiments/benchmarks/policies.py transfer --data cifar10 --weights cifar10_resnet56.pt \
        --source cifar10_resnet20.pt --json experiments/results/policy_transfer.json

DIR is an image folder (train/, test/) of 32 x 32 images; the weights are for ResNet-56 and ResNet-20. `budgets` trains
a policy on ResNet-56 with limits drawn between 25 and 75 % of the MACs, and tests its candidates at five budgets;
`transfer` trains one on ResNet-20 and tests its candidate for ResNet-56 at half of the MACs. Both use three training
seeds, and are compared with uniform pruning, greedy allocation on the same sensitivity, and dynamic programming on it,
from which the policy starts. The figures are top-1 before fine-tuning, after the same repair, on the odd test images
(the final half; `--half even` is for development). Differences are paired by budget and seed, with 95 % confidence
intervals. Results that are already in the JSON file are not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from gnnrl_lightning.candidates.options import CandidateOptions
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import ImageFolder
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.evaluation.options import ScoringOptions
from gnnrl_lightning.job.checked import Checked, check
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.job.prediction import proposal
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.job.trained import Trained, train
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.report.paired import paired_difference
from gnnrl_lightning.rl.env.options import EpisodeOptions
from gnnrl_lightning.rl.learners import GNNRL
from gnnrl_lightning.rl.policies import Agent, Beta, load_policy, save_policy
from gnnrl_lightning.search.baselines import FROM_SENSITIVITY, uniform
from gnnrl_lightning.search.options import SearchOptions
from gnnrl_lightning.training.train import quiet_trainer

SEEDS = (0, 1, 2)
BUDGETS = (0.3, 0.4, 0.5, 0.6, 0.7)
RANGE = (0.25, 0.75)
MODES = ("budgets", "transfer")
ITERATIONS = 40
"""Iterations in the proxy, of 64 episodes each."""
REAL = 1
"""Iterations with real evaluations: a run needs one, which is the last."""
POLICY = partial(Agent, head="node", distribution=Beta)
PROXY = {"episodes_per_iteration": 8, "proxy_between": 4, "proposal_spread": 0.05}
"""Settings of an agent that learns in the proxy and from its own evaluations."""


def load(network: str, weights: str, data: ImageFolder, mode: str) -> Checked:
    """Load a network with its weights and images."""
    options = Options(
        CandidateOptions(repair="batch_norm", calibration_examples=256),
        ScoringOptions(precision="bf16"),
        EpisodeOptions(macs_range=RANGE if mode == "budgets" else None, reward=None, surrogate=False),
        SearchOptions(evaluations=60),
    )
    return check(Task(NetworkSpec(network), data, weights), Budget(macs=0.5), options)


def learn(trained: Trained, seed: int, path: Path) -> None:
    """Train and save a policy, unless its file exists."""
    if path.exists():
        return
    agent = GNNRL(make_policy=POLICY, proxy_warmup=ITERATIONS, seed=seed, **PROXY)
    problem = trained.problem(trained.journalled(Journal()))
    problem.start(from_sensitivity=True)
    trained.job.environments().connect(agent, problem)
    quiet_trainer(max_epochs=agent.iterations(REAL), accelerator="cpu", log_every_n_steps=1).fit(agent)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_policy(agent.policy, path)


class Measured:
    """Test accuracies of candidates, kept in a JSON file."""

    def __init__(self, trained: Trained, half: str, path: Path | None) -> None:
        self.job, self.path = trained.job, path
        test = trained.job.task.data.test
        self.half = test.subset(torch.arange(len(test))[int(half == "odd") :: 2])
        self.record: dict[str, Any] = {"half": half, "threads": torch.get_num_threads(), "rows": []}
        if path is not None and path.exists():
            self.record = json.loads(path.read_text(encoding="utf-8"))
            if self.record["half"] != half:
                raise SystemExit(f"{path} has the {self.record['half']} test images")
        self.pruner = trained.final_pruner

    def __call__(self, method: str, budget: float, seed: int | None, widths: Tensor) -> float:
        """Top-1 of a candidate before fine-tuning, in percent."""
        key = {"method": method, "budget": budget, "seed": seed}
        for row in self.record["rows"]:
            if key.items() <= row.items() and row["widths"] == widths.tolist():
                return row["top1"]
        network = self.pruner.prune(self.pruner.plan(widths)).to(memory_format=torch.channels_last)  # pyright: ignore
        accuracy = self.job.task.figures(network, self.half)["top1"]
        limits = self.job.limits
        self.record["rows"].append(
            {**key, **limits.ratios(limits.costs(widths)), "top1": accuracy, "widths": widths.tolist()}
        )
        self.write()
        print(f"{method:20} {budget:.1f} {'' if seed is None else seed!s:2} {accuracy:.2f}", flush=True)
        return accuracy

    def write(self) -> None:
        """Write the known results."""
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.record, indent=1) + "\n", encoding="utf-8")


def measure(trained: Trained, agents: Mapping[int, GNNRL], budgets: tuple[float, ...], measured: Measured) -> None:
    """Test the policies, uniform pruning and the allocations at all budgets, and compute paired differences."""
    job = trained.job
    found: dict[str, list[float]] = {name: [] for name in ("policy", "uniform", *FROM_SENSITIVITY)}
    summary: dict[str, Any] = {"budgets": {}}
    for share in budgets:
        limits = job.limits.with_limits(macs=share)
        others = {
            "uniform": measured("uniform", share, None, uniform(job.graph, limits)),
            **{
                name: measured(name, share, None, find(job.graph, limits, trained.sensitivity))
                for name, find in FROM_SENSITIVITY.items()
            },
        }
        mine = [measured("policy", share, seed, proposal(trained, agent, limits)) for seed, agent in agents.items()]
        found["policy"] += mine
        for name, value in others.items():
            found[name] += [value] * len(mine)
        summary["budgets"][str(share)] = {
            "policy": sum(mine) / len(mine),
            **others,
            **{f"minus_{name}": paired_difference(dict(enumerate(mine)), value) for name, value in others.items()},
        }
    pairs = {name: dict(enumerate(values)) for name, values in found.items()}
    summary["minus"] = {
        name: paired_difference(pairs["policy"], pairs[name]) for name in ("uniform", *FROM_SENSITIVITY)
    }
    measured.record["summary"] = json.loads(json.dumps(summary, default=vars))
    measured.write()
    print(json.dumps(measured.record["summary"], indent=1))


def draw(record: Mapping[str, Any], path: Path) -> None:
    """Plot accuracy over budget, one line per method."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for method, colour in (("policy", "tab:blue"), ("greedy", "tab:orange"), ("uniform", "tab:gray")):
        rows = [row for row in record["rows"] if row["method"] == method]
        shares = sorted({row["budget"] for row in rows})
        means = [
            sum(values) / len(values)
            for values in ([row["top1"] for row in rows if row["budget"] == share] for share in shares)
        ]
        axes.plot(shares, means, color=colour, label=method)
        axes.scatter([row["budget"] for row in rows], [row["top1"] for row in rows], color=colour, s=12)
    axes.set(xlabel="MACs kept", ylabel="top-1 before fine-tuning, %", title="One policy for all budgets, no search")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--data", required=True, metavar="DIR", help="image folder with train/ and test/")
    parser.add_argument("--weights", required=True, metavar="FILE", help="weights of the dense ResNet-56")
    parser.add_argument("--source", metavar="FILE", help="weights of the dense ResNet-20, for transfer")
    parser.add_argument("--policies", type=Path, default=Path("runs/policies"), help="folder of the trained policies")
    parser.add_argument("--half", choices=("even", "odd"), default="odd", help="half of the test images (default odd)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file of the results")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="image file of the plot of budgets")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: all)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = ImageFolder(options.data, holdout_size=3000)
    checked = load("resnet56", options.weights, data, options.mode)
    job = source = train(checked)
    if options.mode == "transfer":
        if options.source is None:
            parser.error("transfer needs --source, weights of ResNet-20")
        source = train(load("resnet20", options.source, data, options.mode))
    agents = {}
    for seed in SEEDS:
        path = options.policies / f"{options.mode}-seed{seed}.safetensors"
        learn(source, seed, path)
        agents[seed] = GNNRL(make_policy=POLICY, proxy_warmup=20, seed=seed, **PROXY)
        checked.prepare(agents[seed])
        load_policy(agents[seed].policy, path)
    measured = Measured(job, options.half, options.json)
    measure(job, agents, BUDGETS if options.mode == "budgets" else (0.5,), measured)
    if options.figure is not None:
        draw(measured.record, options.figure)


if __name__ == "__main__":
    main()
