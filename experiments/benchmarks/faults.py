"""Inject faults into small runs: count how many end as they should.

    python experiments/benchmarks/faults.py --json experiments/results/faults.json

A perceptron for the diabetes data is pruned by the whole job. Each trial passes if the program ends with the expected
exit code and one line, no traceback, and if the run, resumed, has all figures and weights of an uninterrupted one:

- `kills`: SIGKILL at a random moment;
- `phases`: SIGKILL in the finals and before and after a fine-tuning that is undone, of a network of which whole groups
  may go;
- `stages`: SIGKILL in and after the first of two stages, and a damaged artifact of that stage, repaired as the message
  says;
- `full_disk`: a file system of a given size, which is made larger before the run is resumed;
- `read_only`, `removed`, `renamed`, `file_in_the_way`: other refusals of the operating system;
- `two_processes`: a second process on the same folder while the first one runs;
- `shared_cache`: processes that add to one table of latencies at once;
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
from pathlib import Path
from typing import Any

import yaml
from damaged_files import CONFIG, DAMAGED, EXPERIMENT, DamagedFiles
from resume import differences

from gnnrl_lightning.cli import main as program
from gnnrl_lightning.cost.grid import Grid
from gnnrl_lightning.files import replacing
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.runs.integrity import read_result
from gnnrl_lightning.speed.cache import Cache
from gnnrl_lightning.versions import versions

UNDONE = {
    "network": {"class_path": "residual.Residual", "init_args": {}},
    "budget": {"min_width": 0},
    "finals": {"candidates": 3, "steps": 10},
    "finetuning": {"learning_rate": 3.0},
}
"""Changes for the phases: whole groups, finals, and a fine-tuning that makes networks worse."""
STAGED = {"stages": {"shares": [0.75], "epochs": 1}}
"""Changes for a run in two stages."""
STAGE_PHASES = ("stage-1/journal.jsonl", "stage-1/checkpoints/pruned.safetensors", "stage-1/result.json")
"""Files after whose appearance such a run is killed."""
PHASES = ("finals.jsonl", "checkpoints/uniform.safetensors", "checkpoints/pruned.safetensors")
"""Files after whose appearance a run is killed."""
SIZES = (8, 16, 32, 64, 128, 192, 256, 384, 512, 768)  # KiB


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
        self.root = root
        self.config, self.undone, self.staged = (root / f"{name}.yaml" for name in ("faults", "undone", "staged"))
        for path, changes in ((self.config, CONFIG), (self.undone, UNDONE), (self.staged, STAGED)):
            path.write_text(yaml.safe_dump(changes), encoding="utf-8")
        self.count, began = 0, time.perf_counter()
        self.whole = self.finished("whole")
        self.seconds = time.perf_counter() - began

    def finished(self, name: str, *changes: Path) -> RunFolder:
        """The folder of a new run that nothing interrupts."""
        end = self.start(name, None, *changes).wait()
        if end.code != 0:
            raise RuntimeError(f"the uninterrupted run ended with {end.code}: {end.said}")
        return RunFolder(self.root / name)

    def start(self, name: str, root: Path | None = None, *changes: Path) -> Started:
        """Start a new run."""
        where = ["--run.root", str(root or self.root), "--run.name", name]
        configs = [part for path in (EXPERIMENT, self.config, *changes) for part in ("--config", str(path))]
        return Started(["fit", *configs, *where], self.root / f"{name}.log")

    def resume(self, folder: Path) -> End:
        """Resume a run, or begin it if it has no configuration yet."""
        if not (folder / "config.yaml").is_file():
            return self.start(folder.name, folder.parent).wait()
        return Started(["fit", "--resume", str(folder)], self.root / "resumed.log").wait()

    def same(self, folder: Path, whole: RunFolder | None = None) -> bool:
        """Resume a run; whether it ends like the uninterrupted one."""
        return self.resume(folder).code == 0 and not differences(RunFolder(folder), whole or self.whole)

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

    def phases(self) -> Iterator[bool]:
        """SIGKILL in phases that the other runs do not have."""
        whole = self.finished("whole-undone", self.undone)
        if read_result(whole)["pruned"]["finetuning_kept"]:
            raise RuntimeError("no fine-tuning was undone: raise its learning rate")
        for name in PHASES:
            yield self.same(self.killed_after(name, self.undone), whole)

    def stages(self) -> Iterator[bool]:
        """SIGKILL in and after the first of two stages, and a damaged artifact of that stage."""
        whole = self.finished("whole-stages", self.staged)
        for name in STAGE_PHASES:
            folder = self.killed_after(name, self.staged)
            yield self.same(folder, whole)
        folder = self.killed_after(STAGE_PHASES[-1], self.staged)
        stage = RunFolder(folder).stage(1)
        weights = stage.pruned / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
        end = self.resume(folder)
        yield end.is_line(2) and f"delete it and {stage.result} to go on" in end.said
        shutil.rmtree(stage.pruned)
        stage.result.unlink()
        yield self.same(folder, whole)

    def killed_after(self, name: str, changes: Path) -> Path:
        """The folder of a new run that is killed once it has written a file."""
        self.count += 1
        folder = self.root / f"killed-after-{self.count}"
        run = self.start(folder.name, None, changes)
        self.until(folder, name)
        os.kill(run.process, signal.SIGKILL)
        run.wait()
        return folder

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

    def shared_cache(self, writers: int = 8) -> Iterator[bool]:
        """Processes that add to one table at once: all that they add stays."""
        cache, processes = Cache(self.root / "shared-cache", {}), []
        for number in range(writers):
            processes.append(os.fork())
            if processes[-1] == 0:
                for row in range(10):
                    cache.add({f"operator {number} {row}": Grid((0,), (1, 2), ((0.1, float(number)),))})
                os._exit(0)
        for process in processes:
            yield os.waitpid(process, 0)[1] == 0
        yield len(cache.read()) == 10 * writers


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
    parser.add_argument("--only", nargs="+", help="some parts, such as read_only")
    parser.add_argument(
        "--json", type=Path, help="file of the results; a later call replaces the parts that it measures"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of torn lines of the journal
    draw, counts = random.Random(options.seed), {}
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(Path(folder))
        files = DamagedFiles(trials.whole)
        parts = {f"damages, {name}": files.damages(name, options.damages, draw) for name in DAMAGED}
        parts |= {
            "two_processes": trials.two_processes(),
            "shared_cache": trials.shared_cache(),
            "phases": trials.phases(),
            "stages": trials.stages(),
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
            if options.only is not None and name not in options.only:
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
