"""The cache of measured tables: a file for each machine and way to measure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from filelock import FileLock

from gnnrl_lightning.cost.grid import Grid
from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.files import replacing
from gnnrl_lightning.speed.table import NO_TABLE, as_record, from_record

FORMAT = 2
"""Version of the files in the cache; those of other versions have other names."""

ROOM = 2**16
"""Bytes that must fit into the folder of the cache before anything is measured: tables of large networks."""


class Cache:
    """Tables on disk, one file for each machine and way to measure, with a checksum of its contents.

    Several processes may use a file at once: one at a time adds to it.

    Args:
        folder: The folder; None: nothing is kept.
        settings: Machine, versions and options on which the times depend, in plain JSON types.
    """

    def __init__(self, folder: str | Path | None, settings: Mapping[str, Any]) -> None:
        self.settings = json.loads(json.dumps(dict(settings)))
        name = f"latency-{_hash({'format': FORMAT, **self.settings})[:16]}.json"
        self.path = None if folder is None else Path(folder).expanduser() / name

    def read(self) -> dict[str, Grid]:
        """Return the grids measured so far.

        Raises:
            UserError: The file was damaged, edited, or copied from another machine.
        """
        if self.path is None or not self.path.exists():
            return {}
        try:
            if not self.path.is_file():
                raise ValueError("it is no regular file")
            found = json.loads(self.path.read_text(encoding="utf-8"))
            if found["sha256"] != _hash(found["operators"]):
                raise ValueError("it was changed since it was written")
            if found["settings"] != self.settings:
                raise ValueError("it was measured on another machine or in another way")
            return from_record(found["operators"])
        except (OSError, *NO_TABLE) as error:
            raise UserError(
                f"latency.cache {self.path} cannot be used ({one_line(error)}): delete it to go on; the operators are "
                "measured again"
            ) from error

    def add(self, grids: Mapping[str, Grid]) -> None:
        """Keep more grids, beside those of other processes.

        Raises:
            UserError: The folder cannot be written, or the file cannot be read.
        """
        if self.path is None:
            return
        with self._writing(self.path.parent), FileLock(self.path.with_suffix(".lock")):
            operators = as_record({**self.read(), **grids})
            contents = {"settings": self.settings, "sha256": _hash(operators), "operators": operators}
            with replacing(self.path) as partial:
                partial.write_text(json.dumps(contents) + "\n", encoding="utf-8")

    def check_writable(self) -> None:
        """Refuse a folder that cannot be written or is full, before minutes are spent on what it is to keep.

        Raises:
            UserError: Nothing can be written there.
        """
        if self.path is None:
            return
        with self._writing(self.path.parent), TemporaryFile(dir=self.path.parent) as file:
            file.write(bytes(ROOM))
            file.flush()

    @contextmanager
    def _writing(self, folder: Path) -> Iterator[None]:
        """Create the folder, and turn what the operating system refuses within this block into one line."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise UserError(
                f"latency.cache {folder} cannot be written ({one_line(error)}): give another folder, or null"
            ) from error


def _hash(contents: Any) -> str:
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()
