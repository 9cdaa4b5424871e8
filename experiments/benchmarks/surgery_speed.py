"""Speed of surgery compared with torch-pruning, and of the cost model.

    python experiments/benchmarks/surgery_speed.py --json experiments/results/surgery_speed.json

Both start from a dense network in memory and produce a pruned copy, with one thread; results are medians of paired
rounds. torch-pruning copies the network, builds its graph, scores the channels and prunes at a uniform ratio. This
package plans and prunes at the widths of half the MACs: once with the scores of a `Pruner`, as in a search, and once
with `graph.plan`, which scores all channels again.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
from topology import build, timed
from torch import nn

import gnnrl_lightning
from gnnrl_lightning import networks
from gnnrl_lightning.candidates.pruner import Pruner

NETWORKS = ("cifar_resnet56", "resnet50", "densenet121")


def measure(name: str, rounds: int) -> dict[str, Any]:
    """One row of the table."""
    network, shape = build(name)
    if name == "cifar_resnet56":
        network = networks.resnet56(shortcut="B")  # torch-pruning cannot prune option-A shortcuts
    network.eval()
    example = torch.randn(1, *shape)
    graph = gnnrl_lightning.trace(network, example, self_test=False)
    widths = graph.project(graph.widths, macs=0.5)
    head = [module for module in network.modules() if isinstance(module, nn.Linear)]

    scored = Pruner(graph, network, example, repair="none")
    scored.plan(widths)  # a search scores the channels once

    def ours() -> None:
        scored.plan(widths).apply(network)

    def ours_scored() -> None:
        graph.plan(network, widths).apply(network)

    def theirs() -> None:
        copied = copy.deepcopy(network)
        ignored = [copied.get_submodule(path) for path, module in network.named_modules() if module in head]
        importance = tp.importance.MagnitudeImportance(p=2)
        tp.pruner.MagnitudePruner(copied, example, importance, pruning_ratio=0.3, ignored_layers=ignored).step()

    times = [(timed(ours), timed(theirs), timed(ours_scored)) for _ in range(rounds)]
    many = torch.stack([graph.widths] * 1000)
    seconds = min(timed(lambda: graph.cost.macs(many)) for _ in range(5))
    return {
        "network": name,
        "ours_ms": round(1000 * statistics.median(row[0] for row in times), 1),
        "torch_pruning_ms": round(1000 * statistics.median(row[1] for row in times), 1),
        "ours_with_scores_ms": round(1000 * statistics.median(row[2] for row in times), 1),
        "ratio": round(statistics.median(row[1] / row[0] for row in times), 2),
        "ratio_with_scores": round(statistics.median(row[1] / row[2] for row in times), 2),
        "cost_candidates_per_s": round(len(many) / seconds),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--rounds", type=int, default=9, help="paired rounds")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in NETWORKS:
        rows.append(measure(name, args.rounds))
        print(rows[-1], flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
