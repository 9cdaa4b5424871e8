"""How well latency is predicted, and whether a latency budget is met, on this machine.

    python experiments/benchmarks/latency.py --json experiments/results/latency.json
    python experiments/benchmarks/latency.py --json experiments/results/latency.json --backend onnxruntime

For each network and batch size, with one thread and `--backend`: the multiple of channels is measured (or given by
`--multiple`), then the table of operators and some whole networks, as in a job whose budget is 60 % of the latency.
Then

1. candidates of random widths in this multiple are predicted, and measured along with the first of these networks: mean
   and largest error;
2. one keep ratio for all groups is projected onto 60 % of the dense latency, and measured. If it misses the limit by
   more than the tolerance of a job, the model is corrected and the projection is repeated, as at the end of a search;
3. one keep ratio is projected onto 60 % of the MACs, and measured.

Networks are measured in interleaved rounds, by the processor time of the thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

import gnnrl_lightning
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.cost.metrics import LATENCY
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.job.latency_check import ROUNDS, TOLERANCE
from gnnrl_lightning.networks import mobilenet_v2, resnet56
from gnnrl_lightning.options import AUTO
from gnnrl_lightning.report.progress import hidden_steps
from gnnrl_lightning.speed.alignment import align
from gnnrl_lightning.speed.backend import Cell
from gnnrl_lightning.speed.latency import Latency, measure_latency
from gnnrl_lightning.speed.machine import machine
from gnnrl_lightning.speed.options import LatencyOptions
from gnnrl_lightning.speed.timer import RealTimer, Timer

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet56": (resnet56, 32),
    "resnet18": (lambda: resnet18(num_classes=10), 64),
    "mobilenet_v2": (mobilenet_v2, 32),
}
"""Name -> the network, and the side of its images."""

SHARE = 0.6


def random_widths(graph: ComputationGraph, count: int, multiple: int, seed: int = 1) -> Tensor:
    """Widths `(count, G)`: keep ratios between a lowest one, drawn for each candidate, and 1."""
    generator = torch.Generator().manual_seed(seed)
    lowest = 0.1 + 0.6 * torch.rand(count, 1, generator=generator)
    keep = lowest + (1 - lowest) * torch.rand(count, len(graph.widths), generator=generator)
    return ((keep * graph.widths / multiple).long().clamp(min=1) * multiple).minimum(graph.widths)


class Together:
    """Measures further networks along with the first ones that it is asked for: a machine's speed changes by the hour.

    Args:
        timer: Measures.
        further: The further networks.

    Attributes:
        milliseconds: Their times.
    """

    def __init__(self, timer: Timer, further: Sequence[nn.Module]) -> None:
        self.timer, self.milliseconds = timer, list[float]()
        self.further: Sequence[nn.Module] = further

    def check(self, network: nn.Module) -> None:
        """See `Timer`."""
        self.timer.check(network)

    def operators(self, cells: Sequence[Cell]) -> list[float]:
        """Measure operators."""
        return self.timer.operators(cells)

    def networks(self, networks: Sequence[nn.Module]) -> list[float]:
        """Measure networks and the further ones."""
        found = self.timer.networks([*networks, *self.further])
        if self.further:
            self.milliseconds, self.further = found[len(networks) :], ()
        return found[: len(networks)]


def share_of(timer: Timer, graph: ComputationGraph, network: nn.Module, widths: Tensor) -> float:
    """Measured latency at some widths as a share of the dense network's."""
    dense, pruned = timer.networks([network, graph.plan(network, widths).apply(network)])
    return pruned / dense


def meet(timer: Timer, graph: ComputationGraph, network: nn.Module, latency: Latency, budget: Budget) -> dict[str, Any]:
    """Project one keep ratio onto the latency budget; narrow by what has been measured while it misses it."""
    graph = graph.with_latency(latency.model)
    limits = budget.on(graph)
    tried = [limits.project(graph.widths)]
    shares = [share_of(timer, graph, network, tried[0])]
    while shares[-1] > SHARE * (1 + TOLERANCE) and len(shares) <= ROUNDS:
        most = float(graph.latency(tried[-1])) * SHARE / shares[-1]
        tried.append(limits.project(tried[-1], {LATENCY: most}))
        shares.append(share_of(timer, graph, network, tried[-1]))
    share, widths = min(zip(shares, tried, strict=True), key=lambda each: each[0])
    macs = int(graph.cost.macs(widths)) / int(graph.cost.macs(graph.widths))
    return {"shares": shares, "share": share, "macs": macs, "again": share_of(timer, graph, network, widths)}


def measure(
    name: str, batch: int, backend: str, given: int | str, candidates: int, load: Callable[[], float]
) -> dict[str, Any]:
    """One row of the table."""
    make, side = NETWORKS[name]
    torch.manual_seed(0)
    network, example = make().eval(), torch.zeros(1, 3, side, side)
    graph = gnnrl_lightning.trace(network, example, self_test=False)
    options = LatencyOptions(batch_size=batch, threads=1, backend=backend, cache=None)
    timer = RealTimer(options, torch.device("cpu"), example, hidden_steps)
    budget = Budget(latency=SHARE)
    multiple = align(graph, network, budget, timer, batch).multiple if given == AUTO else int(given)
    budget = budget.aligned(multiple)
    widths, began = random_widths(graph, candidates, multiple), time.perf_counter()
    together = Together(timer, [graph.plan(network, row).apply(network) for row in widths])
    latency = measure_latency(graph, network, example, options, together, budget=budget)
    seconds = time.perf_counter() - began
    predicted = latency.model(widths).tolist()
    errors = [one / other - 1 for one, other in zip(predicted, together.milliseconds, strict=True)]
    met = meet(timer, graph, network, latency, budget)
    fewer = Budget(macs=SHARE, channel_multiple=multiple, min_width=budget.min_width).on(graph).project(graph.widths)
    return {
        "network": name,
        "image": side,
        "batch_size": batch,
        "backend": backend,
        "multiple": given,
        "channel_multiple": multiple,
        "versions": latency.machine["versions"],
        "dense_ms": latency.milliseconds[0],
        "cells": sum(len(grid.inputs) * len(grid.outputs) for grid in latency.model.grids.values()),
        "seconds": seconds,
        "own_mean_error": latency.summary()["mean_error"],
        "mean_error": statistics.mean(map(abs, errors)),
        "largest_error": max(map(abs, errors)),
        "bias": statistics.mean(errors),
        "predicted_ms": predicted,
        "measured_ms": together.milliseconds,
        "latency_budget": met,
        "macs_budget": {"share": share_of(timer, graph, network, fewer)},
        "load": load(),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file to write; rows that it has are kept")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--backend", default="eager")
    parser.add_argument("--multiple", default=AUTO, help="of the widths; auto: the number that is fastest here")
    parser.add_argument("--candidates", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(args.json.read_text())["rows"] if args.json is not None and args.json.is_file() else []
    for batch in args.batches:
        for name in args.networks:
            row = measure(name, batch, args.backend, args.multiple, args.candidates, lambda: os.getloadavg()[0])
            key = ("network", "batch_size", "backend", "multiple")
            rows = [each for each in rows if any(each[part] != row[part] for part in key)] + [row]
            print(
                {part: value for part, value in row.items() if part != "predicted_ms" and part != "measured_ms"},
                flush=True,
            )
            if args.json is not None:
                found = {"machine": machine(torch.device("cpu")), "torch": torch.__version__, "rows": rows}
                args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
