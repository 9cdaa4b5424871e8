"""Write the candidates of finished searches as a file for critics.py.

    python experiments/benchmarks/recorded.py runs/NAME/compare/*-seed?.jsonl --network resnet56 --checkpoint FILE \
      --images FOLDER --budget 0.5 --out FILE

All searches are of one network at one budget. The losses of single groups are measured as in the searches.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from one_problem import arguments, trained_network

SHORTEST = 10
"""Candidates of a search; those with fewer are left out."""


def main() -> None:
    """Measure the sensitivity, and write the file."""
    parser = arguments(__doc__)
    parser.add_argument("searches", type=Path, nargs="+", help="candidates of the searches, as comparisons record them")
    parser.add_argument("--holdout", type=int, default=1000, help="held-out images of the searches")
    parser.add_argument("--out", type=Path, required=True, help="the file")
    args = parser.parse_args()
    trained = trained_network(args, args.holdout)
    graph = trained.job.graph
    lines = [{"dense": graph.widths.tolist(), "names": [group.name for group in graph.groups], "network": args.network}]
    for number, path in enumerate(args.searches):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if len(rows) < SHORTEST:
            continue
        losses = trained.sensitivity.of_groups(torch.tensor([row["widths"] for row in rows]))
        lines += [
            {
                "search": f"{number} {path.stem}",
                "widths": row["widths"],
                "errors": [float(f"{value:.4g}") for value in errors.tolist()],
                "kl": round(math.exp(-row["merit"][0]), 6),
            }
            for row, errors in zip(rows, losses, strict=True)
        ]
    args.out.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
