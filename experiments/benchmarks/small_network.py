"""Search a newcomer's network: ten groups of 8 to 16 channels, trained for seconds on the handwritten digits.

    python experiments/benchmarks/small_network.py --json experiments/results/small_network.json

How many of the agent's candidates are different ones that were not among the starting candidates, and whether its best
one is at least as good as the best of these, for each seed and share of the MACs; by the reward of the search.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gnnrl_lightning import compress
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import Digits
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.rl.environments import AGENT
from gnnrl_lightning.training.options import TrainingOptions

WIDTHS = (8, 8, 8, 12, 12, 12, 16, 16, 16, 16)
"""Channels of the groups."""

SHARES = (0.5, 0.3)


class Plain(nn.Module):
    """A chain of convolutions on images of 8 x 8 pixels, at half the resolution after the third and the sixth."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for number, width in enumerate(WIDTHS):
            stride = 2 if number in (3, 6) else 1
            layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(before, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(N, 10)` of images `(N, 1, 8, 8)`."""
        return self.head(self.layers(x).mean((2, 3)))


def searched(share: float, seed: int, evaluations: int) -> dict[str, Any]:
    """Figures of one search."""
    training = TrainingOptions(epochs=20, learning_rate=0.05)
    options = Options(pretraining=training, finetuning=TrainingOptions(epochs=0))
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        budget, network = Budget(macs=share), NetworkSpec("small_network.Plain")
        given = {"evaluations": evaluations, "options": options, "folder": run, "seed": seed}
        compress(network, Digits(), budget, **given)
        lines = [json.loads(line) for line in (run / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    own = [line for line in lines if line["proposer"] == AGENT]
    start = [line for line in lines if line["proposer"] != AGENT]
    known = {tuple(line["widths"]) for line in start}
    best = [max(line["merit"][0] for line in rows) for rows in (start, own)]
    return {
        "share": share,
        "seed": seed,
        "asked": len(own),
        "different": len({tuple(line["widths"]) for line in own} - known),
        "best_starting": round(best[0], 4),
        "best_of_agent": round(best[1], 4),
    }


def main() -> None:
    """Search with three seeds at two budgets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=80, help="of each search")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for share in SHARES:
        for seed in range(args.seeds):
            found.append(searched(share, seed, args.evaluations))
            print(found[-1], flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
