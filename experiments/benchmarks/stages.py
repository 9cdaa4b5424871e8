"""Compare one cut with a cut in two stages: the same budget, epochs of fine-tuning in total, and seed.

    python experiments/benchmarks/stages.py --json FILE -- --checkpoint FILE --data.init_args.root FOLDER

What follows the two dashes goes to `fit`, with `--config`. Each run is one of `fit` in the folder `--runs`; a second
call resumes what was interrupted and does not repeat what is finished, so that the figures of finished runs can be
written at any time (`--collect`). The first of two stages leaves the square root of the budget and has half of the
epochs. Figures are those of all test images. In one cut, uniform pruning with the same fine-tuning stands beside it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gnnrl_lightning.cli import main as command
from gnnrl_lightning.files import replacing

EXPERIMENT = Path(__file__).parents[1] / "stages_cifar10_resnet20.yaml"
KEPT = ("macs_ratio", "top1_search_before", "top1_search_after", "top1_search_epochs", "widths")
TESTED = (*KEPT, "top1_test_before", "top1_test_after", "latency_ms")


def plans(budget: float, epochs: int) -> Iterator[tuple[str, list[str]]]:
    """Name and options of `fit` for one cut, and for a cut in two stages."""
    first = epochs // 2
    yield "one", ["--stages.shares", "[]", "--stages.epochs", "null", "--finetuning.epochs", str(epochs)]
    stages = ["--stages.shares", f"[{math.sqrt(budget):.2f}]", "--stages.epochs", str(first)]
    yield "two", [*stages, "--finetuning.epochs", str(epochs - first)]


def fit(folder: Path, options: Sequence[str]) -> None:
    """Run `fit`, resume it, or do nothing if it is finished."""
    if (folder / "result.json").is_file():
        return
    if (folder / "config.yaml").is_file():
        command(["fit", "--resume", str(folder)])
    else:
        command(["fit", *options, "--run.root", str(folder.parent), "--run.name", folder.name])


def row(folder: Path, budget: float, plan: str, seed: int) -> dict[str, Any]:
    """Figures of a finished run."""
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    stages = result.get("stages", [])
    searches = [stage["search"] for stage in stages] or [result["search"]]
    found = {
        "budget": budget,
        "plan": plan,
        "seed": seed,
        "dense": {name: result["dense"][name] for name in ("top1_test", "latency_ms")},
        **{name: {key: result[name][key] for key in TESTED} for name in ("uniform", "pruned") if name in result},
        "stages": [{key: stage[key] for key in KEPT} for stage in stages],
        "evaluations": sum(search["evaluations"] for search in searches),
        "search_seconds": sum(search["seconds"] for search in searches),
    }
    return {**found, "test_examples": result["test_examples"], "machine": result["machine"]}


def main() -> None:
    """Run all plans and write their figures after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="file of the figures")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs (default runs)")
    parser.add_argument("--config", type=Path, default=EXPERIMENT, help=f"default {EXPERIMENT.name}")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.15, 0.3], help="shares of the dense MACs")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of fine-tuning in total (default 10)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--collect", action="store_true", help="run nothing, write what is finished")
    parser.add_argument("options", nargs="*", help="options of fit, after --")
    args = parser.parse_args()
    rows = []
    for seed in args.seeds:
        for budget in args.budgets:
            for plan, options in plans(budget, args.epochs):
                folder = args.runs / f"stages-{budget:g}-{plan}-epochs{args.epochs}-seed{seed}"
                own = ["--budget.macs", str(budget), "--seed_everything", str(seed), *options]
                if not args.collect:
                    fit(folder, ["--config", str(args.config), *args.options, *own])
                if (folder / "result.json").is_file():
                    rows.append(row(folder, budget, plan, seed))
                    with replacing(args.json) as partial:
                        partial.write_text(json.dumps({"epochs": args.epochs, "rows": rows}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
