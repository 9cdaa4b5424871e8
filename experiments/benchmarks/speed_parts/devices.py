"""Evaluations per second of a search from the command line, with one and with two processes."""

from __future__ import annotations

import csv
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gnnrl_lightning.runs.folder import POLICY, RunFolder


def evaluations_per_s(arguments: list[str], folder: Path, processes: int, cores: int) -> float:
    """Median of the metric charts/eps of `fit` over the iterations.

    Args:
        arguments: Arguments of `fit`: configuration and data.
        folder: Folder of the runs.
        processes: Number of processes, with one thread each.
        cores: Cores that the processes may use.
    """
    run = RunFolder(folder / f"processes{processes}")
    command = [sys.executable, "-m", "gnnrl_lightning", "fit", *arguments, "--run.root", str(folder)]
    command += ["--run.name", run.path.name, "--run.threads", "1", "--trainer.accelerator", "cpu", "--overwrite"]
    if processes > 1:
        command += ["--trainer.devices", str(processes), "--trainer.strategy", "ddp"]
    available = sorted(os.sched_getaffinity(0))[:cores]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, preexec_fn=lambda: os.sched_setaffinity(0, available))
    while not run.weights(POLICY).is_file():  # it is there when the search has ended
        if process.poll() is not None:
            raise subprocess.CalledProcessError(process.returncode, command)
        time.sleep(0.1)
    process.terminate()
    process.wait()
    with run.metrics.open(encoding="utf-8") as file:
        found = [float(row["charts/eps"]) for row in csv.DictReader(file) if row["charts/eps"]]
    return statistics.median(found)


def measure(arguments: list[str], folder: Path) -> dict[str, Any]:
    """Measure one process on one core, and two processes on two cores."""
    one, two = (evaluations_per_s(arguments, folder, count, count) for count in (1, 2))
    return {"one": round(one, 3), "two": round(two, 3), "ddp_speedup": round(two / one, 2)}
