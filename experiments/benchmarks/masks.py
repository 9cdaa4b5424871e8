"""Masks of dense layers besides channels: LeNet-5 on the handwritten digits, at few parameters that are not zero.

    python experiments/benchmarks/masks.py --json experiments/results/masks.json

With masks, the agent and dynamic programming choose channels and a share of each dense layer's weights; without, the
agent has channels only, with as many parameters. Top-1 accuracy on the test examples before and after fine-tuning,
seeds 0, 1, 2.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gnnrl_lightning import GroupOptions, compress
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import Digits
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.training.options import TrainingOptions

SHARES = (0.1, 0.03, 0.01)
"""Parameters that are not zero, as shares of those of the dense network."""


class LeNet(nn.Sequential):
    """LeNet-5 for images of 8 x 8 pixels, with ReLU; 59 of 60 thousand parameters are in its dense layers.

    Source: LeCun et al., Gradient-based learning applied to document recognition, 1998,
        https://doi.org/10.1109/5.726791.
    """

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(5),
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        )  # fmt: skip


def compressed(share: float, masks: bool, by: str, seed: int) -> dict[str, Any]:
    """Figures of one job."""
    training = TrainingOptions(epochs=30, learning_rate=0.02)
    options = Options(
        pretraining=training, finetuning=TrainingOptions(epochs=15, learning_rate=0.01, distillation_weight=0)
    )
    budget = Budget({"nonzero" if masks else "params": share})
    groups = GroupOptions(masks=["torch.nn.Linear"]) if masks else GroupOptions()
    method = {} if by == "agent" else {"by": by}
    given = {"groups": groups, "evaluations": 80, "options": options, "seed": seed, **method}
    delivered = compress(NetworkSpec("masks.LeNet"), Digits(), budget, **given)
    pruned, dense = delivered.figures["pruned"], delivered.figures["dense"]
    return {
        "share": share,
        "masks": masks,
        "by": by,
        "seed": seed,
        "dense": round(dense["top1_test"], 2),
        "before": round(pruned["top1_test_before"], 2),
        "after": round(pruned["top1_test_after"], 2),
        "params": pruned["params"],
        "nonzero": pruned.get("nonzero", pruned["params"]),
        "macs": pruned["macs"],
        "widths": dict(delivered.widths),
    }


def main() -> None:
    """Compress with and without masks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for share in SHARES:
        for seed in range(args.seeds):
            for masks, by in ((True, "agent"), (True, "dynamic_programming"), (False, "agent")):
                found.append(compressed(share, masks, by, seed))
                print(found[-1], flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
