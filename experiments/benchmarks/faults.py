"""Inject faults into small runs: count how many end as they should.

    python experiments/benchmarks/faults.py --json experiments/results/faults.json

A perceptron for the diabetes data is pruned by the whole job. Each trial passes if the program ends with the expected
exit code and one line, no traceback, and if the run, resumed, has all figures and weights of an uninterrupted one:

- `kills`: SIGKILL at a random moment;
- `full_disk`: a file system of a given size, which is made larger before the run is resumed;
- `read_only`, `removed`, `renamed`, `file_in_the_way`: other refusals of the operating system;
- `two_processes`: a second process on the same folder while the first one runs;
- `damages`: random damages to each kind of file of a run, which must be refused in one line or change nothing.

Processes are forked from one that has imported everything. Full disks are file systems in memory, which only root on
Linux can mount.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from damage import damaged
from resume import differences

from gnnrl_lightning.candidates.options import CandidateOptions
from gnnrl_lightning.cli import main as program
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import Diabetes
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.files import replacing
from gnnrl_lightning.job import artifact
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.integrity import check_files, read_result
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.job.runs import RunFolder, versions
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.job.trained import Trained, train
from gnnrl_lightning.networks.spec import NetworkSpec

EXPERIMENT = Path(__file__).parents[1] / "regression.yaml"
CONFIG = {
    "search": {"evaluations": 60},
    "candidate": {"calibration_examples": 64},
    "delivery": {"calibration_examples": 64},
    "model": {"proxy_warmup": 4, "proxy_between": 2, "proxy_episodes": 16},
    "pretraining": {"epochs": 10},
    "finetuning": {"epochs": 5},
    "run": {"threads": 1},
}
SIZES = (8, 16, 32, 64, 128, 192, 256, 384, 512, 768)  # KiB
DAMAGED = {
    "configuration": "config.yaml",
    "metrics": "metrics.csv",
    "journal": "journal.jsonl",
    "result": "result.json",
    "agent": "checkpoints/agent.ckpt",
    "dense network": "checkpoints/dense.safetensors",
    "sensitivity": "checkpoints/sensitivity.safetensors",
    "recipe": "pruned/recipe.json",
    "pruned network": "pruned/weights.safetensors",
}


@dataclass(frozen=True)
class End:
    """How a process ended: exit code, negative for a signal, and what it said on standard error."""

    code: int
    said: str

    def is_line(self, code: int) -> bool:
        """Whether it is this exit code with one line."""
        return self.code == code and self.said.count("\n") == 1 and "Traceback" not in self.said


class Started:
    """A forked process that runs the command line.

    Args:
        arguments: The command line.
        log: File for its output.
    """

    def __init__(self, arguments: list[str], log: Path) -> None:
        self.log = log
        self.process = os.fork()
        if self.process == 0:
            self._run(arguments)

    def _run(self, arguments: list[str]) -> None:
        code = 70  # a traceback
        try:
            descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            program(arguments)
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def wait(self) -> End:
        """Wait for its end."""
        status = os.waitpid(self.process, 0)[1]
        return End(os.waitstatus_to_exitcode(status), self.log.read_text(encoding="utf-8"))


class Trials:
    """Runs in a folder.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.config = root, root / "faults.yaml"
        self.config.write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
        self.whole = RunFolder(root / "whole")
        began = time.perf_counter()
        end = self.start("whole").wait()
        self.seconds = time.perf_counter() - began
        if end.code != 0:
            raise RuntimeError(f"the uninterrupted run ended with {end.code}: {end.said}")

    def start(self, name: str, root: Path | None = None) -> Started:
        """Start a new run."""
        where = ["--run.root", str(root or self.root), "--run.name", name]
        return Started(
            ["fit", "--config", str(EXPERIMENT), "--config", str(self.config), *where], self.root / f"{name}.log"
        )

    def resume(self, folder: Path) -> End:
        """Resume a run, or begin it if it has no configuration yet."""
        if not (folder / "config.yaml").is_file():
            return self.start(folder.name, folder.parent).wait()
        return Started(["fit", "--resume", str(folder)], self.root / "resumed.log").wait()

    def same(self, folder: Path) -> bool:
        """Resume a run; whether it ends like the uninterrupted one."""
        return self.resume(folder).code == 0 and not differences(RunFolder(folder), self.whole)

    def until(self, folder: Path, name: str) -> None:
        """Wait until a run has written a file."""
        while not (folder / name).exists():
            time.sleep(0.01)

    def kills(self, count: int, draw: random.Random) -> Iterator[bool]:
        """SIGKILL at random moments."""
        for number in range(count):
            run = self.start(f"killed-{number}")
            time.sleep(draw.random() * self.seconds)
            os.kill(run.process, signal.SIGKILL)
            run.wait()
            yield self.same(self.root / f"killed-{number}")

    def full_disk(self) -> Iterator[bool]:
        """File systems of several sizes."""
        for size in SIZES:
            with mounted(self.root / f"disk-{size}", f"size={size}k") as disk:
                end = self.start("run", disk).wait()
                subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
                yield (end.is_line(1) or end.code == 0) and self.same(disk / "run")

    def read_only(self) -> Iterator[bool]:
        """A read-only file system: for a new run, and for one that was killed in its search."""
        with mounted(self.root / "read-only", "size=1g") as disk:
            for killed in (False, True):
                if killed:
                    run = self.start("run", disk)
                    self.until(disk / "run", "journal.jsonl")
                    os.kill(run.process, signal.SIGKILL)
                    run.wait()
                subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
                end = self.resume(disk / "run")
                subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
                yield end.is_line(1) and (not killed or self.same(disk / "run"))

    def moved(self, change: Callable[[Path], Any], again: Callable[[Path], Any] | None) -> Iterator[bool]:
        """Change the folder of a run during its search; put it back by `again`, if it can be."""
        folder = self.root / "moved"
        run = self.start("moved")
        self.until(folder, "journal.jsonl")
        change(folder)
        end = run.wait()
        if again is not None:
            again(folder)
        yield end.is_line(1) and (again is None or self.same(folder))
        shutil.rmtree(folder, ignore_errors=True)

    def two_processes(self) -> Iterator[bool]:
        """A second process on the same folder, and a third one after a kill."""
        for killed in (False, True):
            folder = self.root / f"shared-{killed}"
            run = self.start(folder.name)
            self.until(folder, "checkpoints")
            second = Started(["fit", "--resume", str(folder)], self.root / "second.log").wait()
            yield second.is_line(2) and f"process {run.process} on {os.uname().nodename}" in second.said
            if killed:
                os.kill(run.process, signal.SIGKILL)
            yield run.wait().code == (-signal.SIGKILL if killed else 0)
            yield self.same(folder)

    def damages(self, name: str, count: int, draw: random.Random) -> Iterator[bool]:
        """Random damages to a file of a finished run: refused in one line, or without any effect."""
        path = self.whole.path / DAMAGED[name]
        data, self.records = path.read_bytes(), Journal(self.whole.journal).read()
        self.recipe = artifact.read_recipe(self.whole.pruned)
        try:
            for _ in range(count):
                path.write_bytes(damaged(data, draw))
                yield self._is_noticed(name)
        finally:
            path.write_bytes(data)

    def _is_noticed(self, name: str) -> bool:
        """Whether the damaged file is refused in one line, or reads as before.

        A journal may be shorter, because evaluations that it lost are repeated; metrics decide nothing, nor does what a
        configuration may change in.
        """
        try:
            if name == "result":
                read_result(self.whole)
            elif name == "journal":
                found = Journal(self.whole.journal, True, self.trained.fingerprint).before
                return found == self.records[: len(found)]
            elif name in ("recipe", "pruned network"):
                task = self.trained.job.task
                return artifact.restore(self.whole.pruned, task.original(), task.example()).recipe == self.recipe
            else:
                check_files(self.whole)
                return name in ("metrics", "configuration")
        except UserError as error:
            return str(error).isprintable()
        return False

    @cached_property
    def trained(self) -> Trained:
        """The dense network of the uninterrupted run."""
        spec = NetworkSpec(**yaml.safe_load(EXPERIMENT.read_text(encoding="utf-8"))["network"])
        task, examples = Task(spec, Diabetes(), objective="regression"), CONFIG["candidate"]["calibration_examples"]
        options = Options(candidate=CandidateOptions(calibration_examples=examples))
        return train(check(task, Budget(macs=0.5), options), self.whole)


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount a file system in memory during the block."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def elsewhere(folder: Path) -> Path:
    """Where a folder is moved to."""
    return folder.with_name(f"{folder.name}-elsewhere")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--damages", type=int, default=200, help="random damages to each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one part, such as read_only")
    parser.add_argument(
        "--json", type=Path, help="file of the results; a later call replaces the parts that it measures"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of torn lines of the journal
    draw, counts = random.Random(options.seed), {}
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(Path(folder))
        parts = {f"damages, {name}": trials.damages(name, options.damages, draw) for name in DAMAGED}
        parts |= {
            "two_processes": trials.two_processes(),
            "renamed": trials.moved(lambda run: run.rename(elsewhere(run)), lambda run: elsewhere(run).rename(run)),
            "removed": trials.moved(lambda run: shutil.rmtree(run.rename(elsewhere(run))), None),
            "file_in_the_way": trials.moved(
                lambda run: (run.rename(elsewhere(run)), run.write_text("")),
                lambda run: (run.unlink(), elsewhere(run).rename(run)),
            ),
            "read_only": trials.read_only(),
            "full_disk": trials.full_disk(),
            "kills": trials.kills(options.kills, draw),
        }
        if options.json is not None and options.json.is_file():
            counts = json.loads(options.json.read_text(encoding="utf-8"))["counts"]
        for name, part in parts.items():
            if options.only not in (None, name):
                continue
            passed = []
            for each in part:
                passed.append(each)
                counts[name] = {"tried": len(passed), "passed": sum(passed)}
            print(f"{name:<26} {sum(passed)} of {len(passed)}", flush=True)
            if options.json is not None:
                found = {"seconds_of_a_run": trials.seconds, "seed": options.seed, "counts": counts}
                with replacing(options.json) as partial:
                    partial.write_text(json.dumps(found | {"versions": versions()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
