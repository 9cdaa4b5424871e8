"""Write the candidates of finished searches as a file for critics.py.

    python experiments/benchmarks/recorded.py runs/NAME/compare/*-seed?.jsonl --network resnet56 --checkpoint FILE \
      --images FOLDER --out FILE

All searches are of one network at one budget. The losses of single groups are measured as in the searches.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch

from gnnrl_lightning.candidates.options import CandidateOptions
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import ImageFolder
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.job.trained import train
from gnnrl_lightning.networks.spec import NetworkSpec

SHORTEST = 10
"""Candidates of a search; those with fewer are left out."""


def main() -> None:
    """Measure the sensitivity, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("searches", type=Path, nargs="+", help="candidates of the searches, as comparisons record them")
    parser.add_argument("--network", required=True, help="name of the network")
    parser.add_argument("--checkpoint", type=Path, required=True, help="its weights")
    parser.add_argument("--images", type=Path, required=True, help="folder with cifar10/train and cifar10/test")
    parser.add_argument("--holdout", type=int, default=1000, help="held-out images of the searches")
    parser.add_argument("--out", type=Path, required=True, help="the file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = ImageFolder(args.images, name="cifar10", holdout_size=args.holdout)
    task = Task(NetworkSpec(args.network, {"num_classes": 10}), data, args.checkpoint)
    trained = train(check(task, Budget(macs=0.5), Options(CandidateOptions(calibration_examples=256))))
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
