"""The journal: everything that a search asked for, written down as it happens."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.files import replacing


class Journal:
    """Append-only list of records, one JSON line each; a run that is killed loses at most the last line.

    A journal that is resumed first answers with the records that it holds, in their order, as long as the same things
    are asked; the first thing that differs drops the rest.

    Args:
        path: File to append to, created with the first record; None keeps the records in memory only.
        resume: Whether the file's records come first. A last line that was cut off is removed, with a warning.

    Raises:
        UserError: A line of a file that is resumed is not a JSON object.
    """

    def __init__(self, path: str | Path | None = None, resume: bool = False) -> None:
        self.path = None if path is None else Path(path)
        self._records: list[dict[str, Any]] = []
        self._before: deque[dict[str, Any]] = deque()
        if resume:
            self._repair()
            self._before.extend(self.read())

    @property
    def before(self) -> list[dict[str, Any]]:
        """What the file held when it was resumed and has not been asked for yet."""
        return list(self._before)

    def take(self, **expected: Any) -> dict[str, Any] | None:
        """The next record of those that the file held, if it has these values; else None.

        Where it has others, it is dropped with all that follow: the search takes another course.
        """
        if not self._before:
            return None
        record = self._before[0]
        if all(record.get(key) == value for key, value in expected.items()):
            return self._before.popleft()
        self._drop_rest()
        return None

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record and flush it to the disk; floats that are not finite become null."""
        line = json.dumps(_finite(record), allow_nan=False)
        self._drop_rest()
        if self.path is None:
            self._records.append(json.loads(line))
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())  # a checkpoint that counts it may follow, and outlive a crash of the machine

    def read(self) -> list[dict[str, Any]]:
        """All records in the order they were added, without a last line that was cut off.

        Raises:
            UserError: If a line before the last is not a JSON object.
        """
        if self.path is None:
            return list(self._records)
        # What follows the last newline is empty, or a record whose writing was interrupted.
        return [self._parse(number, line) for number, line in enumerate(self._lines()[:-1], 1)]

    def _lines(self) -> list[str]:
        assert self.path is not None
        return self.path.read_text(encoding="utf-8").split("\n") if self.path.exists() else [""]

    def _keep(self, lines: list[str]) -> None:
        """Let the file have these whole lines alone; whoever is killed meanwhile leaves the old file."""
        assert self.path is not None
        with replacing(self.path) as partial:
            partial.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    def _repair(self) -> None:
        """Remove a last line that was cut off."""
        if self.path is None:
            return
        *whole, torn = self._lines()
        if torn:
            warnings.warn(f"journal {self.path}: the last line was cut off and is removed: {torn[:60]}", stacklevel=4)
            self._keep(whole)

    def _drop_rest(self) -> None:
        if self._before:
            self._keep(self._lines()[: -1 - len(self._before)])
            self._before.clear()

    def _parse(self, number: int, line: str) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"journal {self.path} is damaged in line {number}: {error.msg}") from error
        if not isinstance(record, dict):
            raise UserError(f"journal {self.path} is damaged in line {number}: not a JSON object")
        return record


def _finite(value: Any) -> Any:
    """The value, with None (null) for each float that JSON has no number for."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
