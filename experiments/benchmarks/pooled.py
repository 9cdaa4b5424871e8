"""Pool paired differences of several comparisons over networks, budgets and seeds.

    python experiments/benchmarks/pooled.py experiments/results/compare_cifar10_resnet20.json \
        experiments/results/compare_cifar10_vgg16.json
    python experiments/benchmarks/pooled.py FILE --against OTHER   # the agent of FILE, the methods of OTHER
    python experiments/benchmarks/pooled.py FOLDER --figure top1_test_after

Each file is the compare.json of a run of `compare`, each folder has the JSON files of its single searches. A pair has
the same network, or folder, budget and seed; a method without a seed is paired with every seed. Prints the mean
difference of the agent from each method with its 95 % interval, in test top-1 before fine-tuning or another figure.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gnnrl_lightning.report.paired import Difference, paired_difference

FIGURE = "top1_test_before"
AGENT = "agent"


def read(path: Path) -> dict[str, Any]:
    """The comparison of a file, or of the files of a folder."""
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    return {"network": path.name, "rows": [json.loads(each.read_text()) for each in sorted(path.glob("*.json"))]}


def values(comparisons: Sequence[dict[str, Any]], figure: str = FIGURE) -> dict[str, dict[tuple[Any, ...], float]]:
    """Method -> (network, budget, seed) -> value; the seed of a method without one is None."""
    found: dict[str, dict[tuple[Any, ...], float]] = {}
    for comparison in comparisons:
        for row in comparison["rows"]:
            place = comparison["network"], row["budget"], row["seed"]
            found.setdefault(row["method"], {})[place] = row[figure]
    return found


def differences(
    ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]] | None = None, figure: str = FIGURE
) -> dict[str, Difference | None]:
    """Method -> paired difference of the agent of some comparisons with the method of others; None: of the same."""
    agent = {number: item for number, item in enumerate(values(ours, figure)[AGENT].items())}
    found = {}
    for method, known in values(theirs or ours, figure).items():
        if method == AGENT and theirs is None:
            continue
        other = {number: known.get(place, known.get((*place[:2], None))) for number, (place, _) in agent.items()}
        paired = {number: value for number, value in other.items() if value is not None}
        found[method] = paired_difference({number: value for number, (_, value) in agent.items()}, paired)
    return found


def main() -> None:
    """Print a line for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="compare.json of runs with the agent, or folders")
    parser.add_argument("--against", type=Path, nargs="+", help="the same of runs with the methods; else the same ones")
    parser.add_argument("--figure", default=FIGURE, help=f"figure of the rows (default {FIGURE})")
    args = parser.parse_args()
    ours = [read(path) for path in args.files]
    theirs = None if args.against is None else [read(path) for path in args.against]
    for method, found in differences(ours, theirs, args.figure).items():
        if found is not None:
            interval = "" if found.low is None else f" [{found.low:+.2f}, {found.high:+.2f}]"
            print(f"agent minus {method}: {found.mean:+.2f}{interval}, {found.n} pairs")


if __name__ == "__main__":
    main()
