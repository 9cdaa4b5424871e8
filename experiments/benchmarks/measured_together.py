"""Measure the latency of the winners of a comparison in alternation with the dense network.

    python experiments/benchmarks/measured_together.py FOLDER --network resnet20 --json FILE

The folder has the JSON files of the searches of `compare`, with their `method`, `seed` and `widths`. Each winner was
measured at the end of its own search, at another time than the others; here all are measured in the same rounds. Widths
alone are measured: weights are random, and images zeros.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

import gnnrl_lightning.networks as networks
from gnnrl_lightning.speed.machine import machine
from gnnrl_lightning.speed.options import LatencyOptions
from gnnrl_lightning.speed.timer import RealTimer
from gnnrl_lightning.tracer import trace


def main() -> None:
    """Print a line for each winner."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the searches")
    parser.add_argument("--network", required=True, help="name of a network of the package")
    parser.add_argument("--size", type=int, default=32, help="height and width of the images (default 32)")
    parser.add_argument("--batch", type=int, default=64, help="images (default 64)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of all networks (default 5)")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    args = parser.parse_args()
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(args.folder.glob("*.json"))]
    dense, example = getattr(networks, args.network)().eval(), torch.zeros(1, 3, args.size, args.size)
    graph = trace(dense, example, self_test=False)
    winners = [graph.plan(dense, torch.tensor(row["widths"])).apply(dense) for row in rows]
    options, device = LatencyOptions(batch_size=args.batch, threads=1), torch.device("cpu")
    times = torch.tensor([RealTimer(options, device, example).networks([dense, *winners]) for _ in range(args.repeats)])
    ratios = times[:, 1:] / times[:, :1]
    found = []
    for row, ratio in zip(rows, ratios.T, strict=True):
        figures = {name: row[name] for name in ("method", "budget", "seed", "widths")}
        found.append(
            figures | {"ratio": float(ratio.median()), "lowest": float(ratio.min()), "highest": float(ratio.max())}
        )
        print(*(row[name] for name in ("method", "budget", "seed")), *(f"{value:.4f}" for value in ratio.tolist()))
    if args.json is not None:
        dense_ms = float(times[:, 0].median())
        record = {"machine": machine(device), "batch_size": args.batch, "dense_ms": dense_ms, "rows": found}
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
