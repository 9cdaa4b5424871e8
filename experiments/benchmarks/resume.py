"""Compare runs that are killed and resumed with an uninterrupted run.

    python experiments/benchmarks/resume.py --kills 20 --json experiments/results/resume.json

A search on the digits, with a sensitivity, iterations in the proxy and in the real environment, and short trainings,
is first run without interruption. Then it is started once per kill, killed (SIGKILL) at a random moment between its
first and its last file, resumed, and compared bit for bit: the figures of result.json (except seconds and latency), the
journal (except seconds), the metrics (except speeds), and all weights. A second call adds the missing kills.
Batches are small, so that races have several stages; the benchmark fails if no candidate is dropped.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import equal

from gnnrl_lightning.files import replacing
from gnnrl_lightning.runs.folder import RunFolder

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "gnnrl_lightning", "fit"]
SETTINGS = {
    "pretraining.epochs": 4,
    "finetuning.epochs": 3,
    "search.evaluations": 80,
    "scoring.batch_size": 32,
    "candidate.calibration_examples": 64,
    "delivery.calibration_examples": 64,
    "model.proxy_warmup": 4,
    "model.proxy_between": 2,
    "model.proxy_episodes": 16,
}
CLOCK = ("charts/eps", "proxy/episodes_per_second", "result/latency_ms")

# Phase of a run when it is killed, identified by the first missing file.
PHASES = {
    "dense.safetensors": "dense training",
    "sensitivity.safetensors": "calibration",
    "agent.ckpt": "first iteration",
    "policy.safetensors": "search",
    "uniform.safetensors": "fine-tuning, uniform",
    "pruned.safetensors": "fine-tuning, pruned",
}


def start(root: Path, name: str) -> subprocess.Popen[bytes]:
    """Start a run and wait for its configuration file."""
    options = [f"--{key}={value}" for key, value in SETTINGS.items()]
    files = ["--config", str(ROOT / "experiments" / "digits.yaml")]
    command = [*PROGRAM, *files, *options, "--run.root", str(root), "--run.name", name]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (root / name / "config.yaml").is_file():
        if process.poll() is not None:
            raise RuntimeError(f"the run ended early, with exit code {process.returncode}: {' '.join(command)}")
        time.sleep(0.02)
    return process


def phase_of(folder: RunFolder) -> str:
    """Phase of a killed run."""
    return next((phase for name, phase in PHASES.items() if not (folder.checkpoints / name).is_file()), "test, export")


def contents(folder: RunFolder) -> dict[str, Any]:
    """All results of a run that do not depend on the clock."""
    result = json.loads(folder.result.read_text(encoding="utf-8"))
    stages = [stage["search"] for stage in result.get("stages", [])]
    for timed in (result["search"], result["search"]["finals"] or {}, *stages):
        timed.pop("seconds", None)
    for name in {"dense", "uniform", "pruned"} & result.keys():
        result[name].pop("latency_ms")
    journal = [json.loads(line) for line in folder.journal.read_text(encoding="utf-8").splitlines()]
    with folder.metrics.open(encoding="utf-8") as file:
        metrics = [{key: row[key] for key in row if not key.endswith(CLOCK)} for row in csv.DictReader(file)]
    return {"result": result, "journal": [line | {"seconds": 0, "check": ""} for line in journal], "metrics": metrics}


def differences(folder: RunFolder, whole: RunFolder) -> list[str]:
    """Names of the results that differ between two runs."""
    first, second = contents(folder), contents(whole)
    found = [name for name in first if first[name] != second[name]]
    for path in [path for each in (whole, *whole.stages) for path in sorted(each.path.glob("*/*.safetensors"))]:
        name = path.relative_to(whole.path)
        with safe_open(path, "pt") as one, safe_open(folder.path / name, "pt") as other:
            keys = set(one.keys()) | set(other.keys())
            if not all(equal(one.get_tensor(key), other.get_tensor(key)) for key in keys):
                found.append(str(name))
    return found


def measure(root: Path) -> dict[str, Any]:
    """Run without interruption; return the seconds from configuration to end, and the number of dropped candidates."""
    process, began = start(root, "whole"), time.perf_counter()
    process.wait()
    seconds = time.perf_counter() - began
    journal = RunFolder(root / "whole").journal.read_text(encoding="utf-8").splitlines()
    dropped = sum(json.loads(line)["dropped"] for line in journal)
    if not dropped:
        raise RuntimeError(f"none of {len(journal)} candidates was dropped: the search did not race")
    return {"seconds": seconds, "evaluations": len(journal), "dropped": dropped}


def kill(root: Path, whole: RunFolder, seconds: float, number: int, seed: int) -> dict[str, Any]:
    """Start, kill, resume and compare a run."""
    share = random.Random(f"{seed}-{number}").random()
    folder = RunFolder(root / f"killed-{number}")
    process = start(root, folder.path.name)
    time.sleep(share * seconds)
    process.kill()
    process.wait()
    phase = phase_of(folder)
    lines = folder.journal.read_bytes().count(b"\n") if folder.journal.is_file() else 0
    began = time.perf_counter()
    resumed = subprocess.run([*PROGRAM, "--resume", str(folder.path)], capture_output=True, text=True)
    row = {"number": number, "share": share, "phase": phase, "evaluations": lines, "exit_code": resumed.returncode}
    row["seconds_resumed"] = time.perf_counter() - began
    row["differs"] = differences(folder, whole) if resumed.returncode == 0 else [resumed.stderr[-300:]]
    shutil.rmtree(folder.path)
    return row


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments of the kills")
    parser.add_argument("--json", type=Path, help="file of the results; a second call adds to it")
    options = parser.parse_args()
    found: dict[str, Any] = {"settings": SETTINGS, "seed": options.seed, "kills": []}
    if options.json is not None and options.json.is_file():
        found = json.loads(options.json.read_text(encoding="utf-8"))
        if found["settings"] != SETTINGS or found["seed"] != options.seed:
            parser.error(
                f"{options.json} was measured with {found['settings']}, seed {found['seed']}: name another file"
            )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        found["whole"] = measure(root)  # this machine's, now; the run to compare with
        seconds = found["whole"]["seconds"]
        known = {row["number"] for row in found["kills"]}
        for number in sorted(set(range(options.kills)) - known):
            row = kill(root, RunFolder(root / "whole"), seconds, number, options.seed)
            found["kills"].append(row)
            same = "identical" if not row["differs"] else f"differs: {', '.join(row['differs'])}"
            print(f"{number:3}  {row['share']:6.1%}  {row['phase']:<22}  {row['evaluations']:4} evaluations  {same}")
            if options.json is not None:
                with replacing(options.json) as partial:
                    partial.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    identical = sum(not row["differs"] for row in found["kills"])
    whole = "{dropped} of {evaluations} candidates are dropped in a whole run, which takes {seconds:.0f} s"
    print(f"{identical} of {len(found['kills'])} identical; {whole.format(**found['whole'])}")


if __name__ == "__main__":
    main()
