"""The run folder: configuration, logs, checkpoints and results of one run."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gnnrl_lightning.checks import as_path, shown, whole
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.files import SUMS, replacing
from gnnrl_lightning.options import MOST_THREADS
from gnnrl_lightning.runs.lock import HOLDER, LOCK, locked

# Names of the phases whose files are in `checkpoints/`, besides that of the agent.
DENSE, SENSITIVITY, POLICY = "dense", "sensitivity", "policy"
DELIVERED = UNIFORM, PRUNED = ("uniform", "pruned")

LONGEST_NAME = 200
"""Bytes: file systems allow 255, of which the time and a number take some."""

BEGAN = ".began.yaml"
UNCOUNTED = (
    LOCK,
    HOLDER,
    *(f"{name}{end}" for name in (SUMS, BEGAN) for end in ("", ".partial")),
    "config.yaml.partial",
)
"""Files that a run writes before its configuration."""


@dataclass(frozen=True)
class RunOptions:
    """Name and place of a run folder.

    Args:
        name: Name of the run's folder; null: the W&B run's id, or else the experiment and the time.
        experiment: Name of the experiment, for the default name.
        root: Folder of all runs.
        threads: CPU threads; null: PyTorch's default.
    """

    name: str | None = None
    experiment: str = "run"
    root: str = "runs"
    threads: int | None = None

    def __post_init__(self) -> None:
        """Refuse invalid names, paths and numbers of threads."""
        plain_name("run.experiment", self.experiment)
        if self.name is not None:
            plain_name("run.name", self.name)
        as_path("run.root", self.root, "folder")
        if self.threads is not None:
            whole("run.threads", self.threads, 1, MOST_THREADS, ", or null")


def plain_name(option: str, name: str) -> None:
    """Refuse what is not a plain name of a folder.

    Args:
        option: The option, for the message.
        name: The name.

    Raises:
        UserError: It has slashes or characters that cannot be in a name, or is too long.
    """
    plain = isinstance(name, str) and name.isprintable() and "\\" not in name
    if not plain or name in ("", ".", "..") or Path(name).name != name:
        raise UserError(f"{option} is {shown(name)}: expected a plain folder name, without slashes")
    if len(name.encode()) > LONGEST_NAME:
        raise UserError(
            f"{option} is {len(name.encode())} bytes long: expected at most {LONGEST_NAME}; choose a shorter one"
        )


def check_place(option: str, path: str | Path) -> None:
    """Refuse a folder that can be neither written nor created, without touching the disk.

    Args:
        option: The option or argument that names it, for the message.
        path: The folder, which need not exist.

    Raises:
        UserError: A file is in its way.
        OSError: The operating system refuses to write there.
    """
    place = Path(path).absolute()
    above = next(each for each in (place, *place.parents) if each.exists())
    if not above.is_dir():
        raise UserError(f"{option} {path} cannot be created: {above} is no folder; choose another one")
    if not os.access(above, os.W_OK):
        raise PermissionError(errno.EACCES, "it cannot be written", str(above))


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run, `<root>/<name>/`.

    Args:
        path: The folder. It exists only after `create`.

    Raises:
        UserError: It is no path.
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", as_path("the folder of a run", self.path, "folder"))

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def began(self) -> Path:
        """The configuration that the run began with."""
        return self.path / BEGAN

    @property
    def metrics(self) -> Path:
        """The logged metrics of all phases."""
        return self.path / "metrics.csv"

    @property
    def journal(self) -> Path:
        """One JSON line for each evaluation."""
        return self.path / "journal.jsonl"

    @property
    def finals(self) -> Path:
        """One JSON line for each finalist."""
        return self.path / "finals.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of the phases' checkpoints and final weights, from which a run resumes."""
        return self.path / "checkpoints"

    def weights(self, phase: str) -> Path:
        """Final weights of a phase (tensors only). The phase is complete once this file exists."""
        return self.checkpoints / f"{phase}.safetensors"

    def checkpoint(self, phase: str) -> Path:
        """Lightning's checkpoint of a phase after its last complete epoch."""
        return self.checkpoints / f"{phase}.ckpt"

    @property
    def latency(self) -> Path:
        """Measurements of latency, if it is limited."""
        return self.checkpoints / "latency.json"

    @property
    def latency_check(self) -> Path:
        """The choice of a winner by measuring it, if latency is limited."""
        return self.checkpoints / "latency_check.json"

    @property
    def fastest(self) -> Path:
        """The candidates of which the fastest is delivered, with their times."""
        return self.checkpoints / "fastest.json"

    def stage(self, number: int) -> RunFolder:
        """The folder of a stage before the last one, from 1 on: it is laid out as that of a run."""
        return RunFolder(self.path / f"stage-{number}")

    @property
    def stages(self) -> list[RunFolder]:
        """The folders of the stages that have begun, in order."""
        named = (re.fullmatch(r"stage-(\d+)", path.name) for path in self.path.glob("stage-*") if path.is_dir())
        return [self.stage(number) for number in sorted(int(found[1]) for found in named if found)]

    @property
    def wandb(self) -> Path:
        """Ids of the W&B runs, one per line, if there are any."""
        return self.checkpoints / "wandb.txt"

    @property
    def pruned(self) -> Path:
        """Folder of the artifact."""
        return self.path / "pruned"

    @property
    def result(self) -> Path:
        """The figures of the run."""
        return self.path / "result.json"

    @property
    def report(self) -> Path:
        """The page that shows the run."""
        return self.path / "report.html"

    @property
    def figures(self) -> Path:
        """Folder of the page's figures as PNG files."""
        return self.path / "figures"

    @property
    def compare(self) -> Path:
        """The figures of a comparison."""
        return self.path / "compare.json"

    @property
    def comparison(self) -> Path:
        """Folder of a comparison's runs."""
        return self.path / "compare"

    @property
    def occupied(self) -> bool:
        """Whether the folder has files other than those of a run that was interrupted at its start."""
        return self.path.exists() and any(item.name not in UNCOUNTED for item in self.path.iterdir())

    @classmethod
    def check(
        cls,
        root: str | Path,
        name: str | None,
        overwrite: bool = False,
        inputs: Sequence[str | Path] = (),
    ) -> None:
        """Refuse a name that cannot be used, without touching the disk.

        Args:
            root: Folder of all runs.
            name: Name that the user gave; None: the default.
            overwrite: Whether an existing run of that name may be replaced.
            inputs: Files and folders that the new run reads.

        Raises:
            UserError: The name is not a plain folder name or is taken, or the existing folder is not that of a run or
                contains an input.
            OSError: The folder of all runs cannot be written.
        """
        root = as_path("run.root", root, "folder")
        check_place("run.root", root)
        if name is None:
            return
        plain_name("run.name", name)
        path = Path(root) / name
        if path.exists() and not path.is_dir():
            raise UserError(f"run folder {path} is a file; choose another name")
        if cls(path).occupied and not overwrite:
            raise UserError(
                f"run folder {path} exists; choose another name, or replace it by overwrite: true (--overwrite)"
            )
        if cls(path).occupied and not cls(path).config.is_file():
            raise UserError(
                f"{path} is not the folder of a run (it has no config.yaml), so overwrite does not delete it"
            )
        for given in inputs:
            if path.exists() and Path(given).resolve().is_relative_to(path.resolve()):
                raise UserError(f"overwrite would delete {given}, which the run reads; choose another name")

    @classmethod
    def create(
        cls,
        root: str | Path = "runs",
        name: str | None = None,
        *,
        experiment: str = "run",
        overwrite: bool = False,
        wandb_id: str | None = None,
        held: ExitStack | None = None,
    ) -> RunFolder:
        """Create the folder. Call this after everything else about the input has been checked.

        Args:
            root: Folder of all runs.
            name: Explicit name; None: the W&B run's id, or else the experiment and the time.
            experiment: Name of the experiment, for the default name.
            overwrite: Replace an existing run of the explicit name: files that a run writes are deleted, other files
                in the folder stay.
            wandb_id: Id of the W&B run, if there is one.
            held: Holds the lock of the folder from now on; None: the folder is not locked.

        Returns:
            The new folder. Without a name, it is unique even within a second and between processes.

        Raises:
            UserError: As `check`.
            OSError: The folder cannot be created or written.
        """
        cls.check(root, name, overwrite)
        Path(root).mkdir(parents=True, exist_ok=True)
        if name is None:
            folder = cls(_fresh(Path(root), wandb_id or f"{experiment}-{datetime.now():%Y%m%d-%H%M%S}"))
        else:
            folder = cls(Path(root) / name)
            folder.path.mkdir(exist_ok=True)
        if held is not None:
            held.enter_context(locked(folder.path))
        folder._clear()  # only once no other process runs there
        return folder

    def write_config(self, config: str) -> None:
        """Write the resolved configuration, which marks the folder as that of a run."""
        with replacing(self.began, checksum=True) as partial:
            partial.write_text(config, encoding="utf-8")
        with replacing(self.config) as partial:
            partial.write_text(config, encoding="utf-8")

    def write_result(self, result: dict[str, Any]) -> None:
        """Write the figures of the run to result.json, which marks the run as finished."""
        with replacing(self.result, checksum=True) as partial:
            partial.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

    def _clear(self) -> None:
        for file in (self.result, self.compare, self.report, self.metrics, self.journal, self.finals):
            file.unlink(missing_ok=True)
        stages = (folder.path for folder in self.stages)
        for folder in (self.pruned, self.checkpoints, self.comparison, self.figures, *stages):
            if folder.is_dir():
                shutil.rmtree(folder)
        for file in (self.path / SUMS, self.began, self.config):  # last: until then it is the folder of a run
            file.unlink(missing_ok=True)


def _fresh(root: Path, stem: str) -> Path:
    """Create `root/stem`, or the first free of `stem-2`, `stem-3`, ...; mkdir decides, so races are safe."""
    number = 1
    while True:
        path = root / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path
