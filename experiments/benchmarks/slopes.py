"""Rank candidates by the surrogate, with and without slopes, after few evaluations.

    python experiments/benchmarks/slopes.py --network resnet20 --checkpoint FILE --images FOLDER --budget 0.3

The candidates are random ones around the allocation of dynamic programming and around uniform pruning, repaired by
refit on 256 images and ranked by their divergence from the dense network on 1,000 images; or those of a file
(`--pool`), whose first line has `names` and `dense` widths of the groups, and the others `widths` and `kl`. Slopes are
measured at no candidate, at dynamic programming's, or at uniform pruning's as well. The figures are Kendall's rank
correlations over the candidates that the surrogate does not know, and over the best third of them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.candidates.options import CandidateOptions
from gnnrl_lightning.cost.budget import BoundBudget, Budget
from gnnrl_lightning.data import ImageFolder
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.options import DeliveryOptions, Options
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.job.trained import Trained, train
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.search.baselines import FROM_SENSITIVITY, uniform
from gnnrl_lightning.surrogate.diagnostics import kendall
from gnnrl_lightning.surrogate.likeness import likeness
from gnnrl_lightning.surrogate.mixture import Surrogate
from gnnrl_lightning.surrogate.observations import Slopes
from gnnrl_lightning.surrogate.prior import prior_forms
from gnnrl_lightning.surrogate.slopes import EffectMeasure, slopes_from
from gnnrl_lightning.surrogate.terms import Terms

KNOWN = (0, 10, 20, 40, 80)
"""Candidates that the surrogate knows."""

REPEATS = 5
"""Random choices of these."""

SPREAD = 0.3
"""Standard deviation of the log keep ratios of random candidates."""


def random_candidates(centres: Sequence[Tensor], limits: BoundBudget, count: int) -> Tensor:
    """Distinct candidates `(n, G)` around the centres in turn, at most `count`."""
    generator = torch.Generator().manual_seed(0)
    noise = SPREAD * torch.randn(count, len(centres[0]), generator=generator, dtype=torch.float64)
    centre = torch.stack(list(centres))[torch.arange(count) % len(centres)]
    return limits.project(centre * noise.exp()).unique(dim=0)


def read_pool(path: Path, graph: ComputationGraph) -> tuple[Tensor, Tensor]:
    """Widths `(n, G)` and log divergences `(n,)` of a file; its names of groups may be prefixes of ours.

    Raises:
        ValueError: Its groups are not those of the network.
    """
    head, *rows = (json.loads(line) for line in path.read_text().splitlines())
    places = []
    for group, width in zip(graph.groups, graph.widths.tolist(), strict=True):
        named = [place for place, name in enumerate(head["names"]) if group.name.startswith(name)]
        if len(named) != 1 or head["dense"][named[0]] != width:
            raise ValueError(f"{path} has no group {group.name} of width {width}")
        places += named
    widths = torch.tensor([row["widths"] for row in rows])[:, places]
    return widths, torch.tensor([row["kl"] for row in rows], dtype=torch.float64).mean(1).log()


def taus(terms: Terms, widths: Tensor, values: Tensor, slopes: Sequence[Slopes]) -> list[dict[str, float]]:
    """Rank correlations for each number of known candidates."""
    found = []
    for known in (known for known in KNOWN if known <= len(values) / 2):
        everything, best = [], []
        for repeat in range(REPEATS if known else 1):
            order = torch.randperm(len(values), generator=torch.Generator().manual_seed(repeat))
            seen, rest = order[:known], order[known:]
            expected = Surrogate(terms, prior_forms(terms), widths[seen], values[seen], slopes).mean(widths[rest])
            third = values[rest].argsort()[: len(rest) // 3]
            everything.append(kendall(expected.tolist(), values[rest].tolist()) or 0.0)
            best.append(kendall(expected[third].tolist(), values[rest][third].tolist()) or 0.0)
        found.append({"known": known, "tau": round(fmean(everything), 3), "best_third": round(fmean(best), 3)})
    return found


def figures(trained: Trained, count: int, pool: Path | None) -> dict[str, Any]:
    """Figures of one network and budget."""
    graph, limits, measure = trained.job.graph, trained.job.limits, EffectMeasure(trained.pruner)
    evaluator, sensitivity = trained.evaluator(), trained.sensitivity
    proposed = {
        "dynamic_programming": FROM_SENSITIVITY["dynamic_programming"](graph, limits, sensitivity),
        "uniform": uniform(graph, limits),
    }
    starting, slopes = {}, []
    for name, widths in proposed.items():
        scored, began = evaluator(widths, name), time.perf_counter()
        effects = measure(widths)
        seconds = time.perf_counter() - began
        slopes.append(slopes_from(widths, effects))
        starting[name] = {
            "widths": widths.tolist(),
            "top1_search": scored.scores["top1"],
            "divergence": scored.scores["divergence"],
            "effects": [round(effect, 3) for effect in effects.tolist()],
            "seconds_evaluation": round(scored.seconds, 2),
            "seconds_effects": round(seconds, 2),
        }
    if pool is None:
        widths = random_candidates(list(proposed.values()), limits, count)
        values = [evaluator(row, "random").scores["divergence"] for row in widths]
        logs = torch.tensor(values, dtype=torch.float64).log()
    else:
        widths, logs = read_pool(pool, graph)
    terms = Terms(graph.widths, sensitivity.of_groups, likeness(graph))
    return {
        "candidates": len(widths),
        "sensitivity_alone": kendall(sensitivity(widths).tolist(), logs.tolist()),
        "starting": starting,
        "slopes_at": {
            label: taus(terms, widths, logs, slopes[:number])
            for number, label in enumerate(("none", "dynamic_programming", "both"))
        },
    }


def arguments(description: str | None, candidates: int) -> argparse.ArgumentParser:
    """Arguments of a benchmark of one network at one budget.

    Args:
        description: The benchmark's.
        candidates: Default number of candidates.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", required=True, help="name of a network of the package")
    parser.add_argument("--arguments", type=json.loads, default={}, help="its arguments (JSON)")
    parser.add_argument("--checkpoint", required=True, help="its weights")
    parser.add_argument("--images", required=True, help="image folder with train/ and test/")
    parser.add_argument("--budget", type=float, required=True, help="share of the MACs")
    parser.add_argument("--candidates", type=int, default=candidates, help=f"candidates (default {candidates})")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    return parser


def trained_network(args: argparse.Namespace, holdout: int) -> Trained:
    """The network of these arguments, with a number of held-out images."""
    torch.set_num_threads(args.threads)
    data = ImageFolder(args.images, name="cifar10", holdout_size=holdout)
    data.setup()
    task = Task(NetworkSpec(args.network, args.arguments), data, args.checkpoint)
    options = Options(CandidateOptions(), delivery=DeliveryOptions(calibration_examples=256))
    return train(check(task, Budget(macs=args.budget), options))


def write(args: argparse.Namespace, found: dict[str, Any]) -> None:
    """Print the figures, and write them where the arguments say."""
    found = {"network": args.network, "arguments": args.arguments, "budget": args.budget, **found}
    print(json.dumps(found, indent=1))
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Measure one network at one budget."""
    parser = arguments(__doc__, candidates=60)
    parser.add_argument("--pool", type=Path, help="file of evaluated candidates to use instead")
    args = parser.parse_args()
    write(args, figures(trained_network(args, 1000), args.candidates, args.pool))


if __name__ == "__main__":
    main()
