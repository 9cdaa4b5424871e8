"""Rank candidates by their divergence from the dense network, softened at several temperatures.

    python experiments/benchmarks/divergence.py --network resnet20 --checkpoint FILE --images FOLDER --budget 0.3 \
        --json experiments/results/divergence/resnet20_0.3.json

The candidates are random ones around the allocation of dynamic programming and around uniform pruning (`--journals`:
those of searches), repaired by refit on 256 images. They are ranked by figures on the first 1,000 held-out training
images, and by the divergence on 2,000; the figures printed are Kendall's rank correlations with the error on the even
test images (the development half), over all candidates and over the half with the least error there, with bootstrap
intervals (5 to 95 %).
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from one_problem import arguments, random_candidates, trained_network, write
from scipy.stats import kendalltau
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gnnrl_lightning.data import ImageFolder, ImageSet
from gnnrl_lightning.job.trained import Trained
from gnnrl_lightning.objective import Classification
from gnnrl_lightning.search.baselines import FROM_SENSITIVITY, uniform
from gnnrl_lightning.speed.inference import for_inference
from gnnrl_lightning.trees import channels_last

TEMPERATURES = (1.0, 2.0, 4.0, 8.0)
FEW, MANY = 1000, 2000
"""Held-out images."""

BATCH = 250
BOOTSTRAPS = 2000


class Images:
    """Normalised images with their labels, and the dense network's outputs for them."""

    def __init__(self, data: ImageFolder, images: ImageSet, trained: Trained) -> None:
        self.batches = [channels_last(data.normalize(batch)) for batch in images.images.split(BATCH)]
        self.labels, self._layers = images.labels, trained.pruner.layers
        self.dense = self.logits(copy.deepcopy(trained.network).eval())

    def logits(self, network: nn.Module) -> Tensor:
        """Outputs of a network, which is optimised for inference in place."""
        fast = for_inference(network, self._layers)
        with torch.inference_mode():
            return torch.cat([fast(batch) for batch in self.batches])


def figures(held: Images, logits: Tensor) -> dict[str, float]:
    """Figures by which a candidate may be ranked, the lower the better."""
    found = {
        "error": 100 * float((logits[:FEW].argmax(1) != held.labels[:FEW]).float().mean()),
        "cross-entropy": float(cross_entropy(logits[:FEW], held.labels[:FEW])),
    }
    for temperature in TEMPERATURES:
        each = Classification(divergence_temperature=temperature).distance(logits, held.dense).sum(1)
        found[f"divergence, T = {temperature:g}"] = float(each[:FEW].mean())
        found[f"divergence, T = {temperature:g}, {MANY} images"] = float(each.mean())
    return found


def correlations(values: np.ndarray, errors: np.ndarray) -> dict[str, dict[str, float]]:
    """Kendall's tau with the errors, over all candidates and over the better half."""
    order = errors.argsort(kind="stable")
    found = {}
    for name, rows in (("all", order), ("better_half", order[: len(order) // 2])):
        draws = np.random.default_rng(0).integers(len(rows), size=(BOOTSTRAPS, len(rows)))
        each = [tau(values[rows[draw]], errors[rows[draw]]) for draw in draws]
        low, high = np.nanpercentile(each, [5, 95])
        found[name] = {"tau": tau(values[rows], errors[rows]), "low": float(low), "high": float(high)}
    return {name: {key: round(value, 3) for key, value in entry.items()} for name, entry in found.items()}


def tau(first: np.ndarray, second: np.ndarray) -> float:
    """Kendall's tau."""
    result: Any = kendalltau(first, second)
    return float(result.statistic)


def candidates(trained: Trained, count: int, journals: list[Path]) -> Tensor:
    """Candidates `(n, G)`, random ones or those of journals."""
    graph, limits = trained.job.graph, trained.job.limits
    if not journals:
        centres = [FROM_SENSITIVITY["dynamic_programming"](graph, limits, trained.sensitivity), uniform(graph, limits)]
        return random_candidates(centres, limits, count)
    lines = [json.loads(line) for path in journals for line in path.read_text(encoding="utf-8").splitlines()]
    widths = torch.tensor(sorted({tuple(line["widths"]) for line in lines}))
    return widths[torch.randperm(len(widths), generator=torch.Generator().manual_seed(0))[:count]]


def main() -> None:
    """Measure one network at one budget."""
    parser = arguments(__doc__, candidates=40)
    parser.add_argument("--journals", type=Path, nargs="*", default=[], help="searches to take candidates from")
    args = parser.parse_args()
    trained = trained_network(args, MANY)
    data = trained.job.task.data
    assert isinstance(data, ImageFolder)
    test = data.test.in_memory()
    assert isinstance(test, ImageSet) and isinstance(data.holdout, ImageSet)
    held, tested = (
        Images(data, images, trained) for images in (data.holdout, test.subset(torch.arange(len(test))[::2]))
    )
    rows = []
    for widths in candidates(trained, args.candidates, args.journals):
        network = trained.pruner.prune(trained.pruner.plan(widths))
        wrong = tested.logits(copy.deepcopy(network)).argmax(1) != tested.labels
        rows.append({**figures(held, held.logits(network)), "test_error": 100 * float(wrong.float().mean())})
    errors = np.array([row.pop("test_error") for row in rows])
    found = {
        "candidates": len(rows),
        "test_error": {"least": round(errors.min(), 2), "mean": round(errors.mean(), 2)},
        "figures": {name: correlations(np.array([row[name] for row in rows]), errors) for name in rows[0]},
    }
    write(args, found)


if __name__ == "__main__":
    main()
