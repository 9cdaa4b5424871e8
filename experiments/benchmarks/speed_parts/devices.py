"""Two processes against one: evaluations a second of a whole search from the command line."""

from __future__ import annotations

import csv
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any


def evaluations_per_s(arguments: list[str], folder: Path, processes: int, cores: int) -> float:
    """Median over the iterations of what `fit` logs as charts/eps.

    Args:
        arguments: Of `fit`: configuration and data.
        folder: Folder of the runs.
        processes: Processes, of one thread each.
        cores: Cores that they may use.
    """
    name = f"processes{processes}"
    command = [sys.executable, "-m", "gnnrl_lightning", "fit", *arguments, "--run.root", str(folder)]
    command += ["--run.name", name, "--run.threads", "1", "--trainer.accelerator", "cpu", "--overwrite"]
    if processes > 1:
        command += ["--trainer.devices", str(processes), "--trainer.strategy", "ddp"]
    available = sorted(os.sched_getaffinity(0))[:cores]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        command, check=True, env=environment, preexec_fn=lambda: os.sched_setaffinity(0, available)
    )  # fmt: skip
    with (folder / name / "metrics.csv").open(encoding="utf-8") as file:
        found = [float(row["charts/eps"]) for row in csv.DictReader(file) if row["charts/eps"]]
    return statistics.median(found)


def measure(arguments: list[str], folder: Path) -> dict[str, Any]:
    """One process on one core, and two on two."""
    one, two = (evaluations_per_s(arguments, folder, count, count) for count in (1, 2))
    return {"one": round(one, 3), "two": round(two, 3), "ddp_speedup": round(two / one, 2)}
