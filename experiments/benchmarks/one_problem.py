"""What benchmarks of one network at one budget share: arguments, the trained network, candidates, and the file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.candidates.options import CandidateOptions
from gnnrl_lightning.cost.budget import BoundBudget, Budget
from gnnrl_lightning.data import ImageFolder
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.options import DeliveryOptions, Options
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.job.trained import Trained, train
from gnnrl_lightning.networks.spec import NetworkSpec

SPREAD = 0.3
"""Standard deviation of the log keep ratios of random candidates."""


def random_candidates(centres: Sequence[Tensor], limits: BoundBudget, count: int) -> Tensor:
    """Distinct candidates `(n, G)` around the centres in turn, at most `count`."""
    generator = torch.Generator().manual_seed(0)
    noise = SPREAD * torch.randn(count, len(centres[0]), generator=generator, dtype=torch.float64)
    centre = torch.stack(list(centres))[torch.arange(count) % len(centres)]
    return limits.project(centre * noise.exp()).unique(dim=0)


def arguments(description: str | None, candidates: int | None = None) -> argparse.ArgumentParser:
    """Arguments of a benchmark of one network at one budget.

    Args:
        description: The benchmark's.
        candidates: Default number of candidates; None: the benchmark makes none.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", required=True, help="name of a network of the package")
    parser.add_argument("--arguments", type=json.loads, default={}, help="its arguments (JSON)")
    parser.add_argument("--checkpoint", required=True, help="its weights")
    parser.add_argument("--images", required=True, help="image folder with train/ and test/")
    parser.add_argument("--budget", type=float, required=True, help="share of the MACs")
    if candidates is not None:
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
