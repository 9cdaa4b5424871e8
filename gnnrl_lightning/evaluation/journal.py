"""The journal: an append-only log of all evaluations of a search."""

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
    """Append-only list of records, one JSON line each; an interrupted run loses at most the last line.

    A resumed journal replays its records in order as long as requests match; the first mismatch drops the remaining
    records.

    Args:
        path: File to append to, created with the first record; None keeps the records in memory.
        resume: Whether to replay the records of the file. An incomplete last line is removed with a warning.

    Raises:
        UserError: A line of the resumed file is not a JSON object.
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
        """The records of the resumed file that have not been replayed yet."""
        return list(self._before)

    def take(self, **expected: Any) -> dict[str, Any] | None:
        """The next record of the resumed file if it has the expected values, else None.

        A record with other values is dropped together with all later ones: the search has diverged from the file.
        """
        if not self._before:
            return None
        record = self._before[0]
        if all(record.get(key) == value for key, value in expected.items()):
            return self._before.popleft()
        self._drop_rest()
        return None

    def append(self, record: Mapping[str, Any]) -> None:
        """Append a record and flush it to disk; floats that are not finite become null."""
        line = json.dumps(_finite(record), allow_nan=False)
        self._drop_rest()
        if self.path is None:
            self._records.append(json.loads(line))
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())  # a later checkpoint may count this record and survive a crash

    def read(self) -> list[dict[str, Any]]:
        """All records in order, without an incomplete last line.

        Raises:
            UserError: A line before the last is not a JSON object.
        """
        if self.path is None:
            return list(self._records)
        # The text after the last newline is empty or an incomplete record.
        return [self._parse(number, line) for number, line in enumerate(self._lines()[:-1], 1)]

    def _lines(self) -> list[str]:
        assert self.path is not None
        return self.path.read_text(encoding="utf-8").split("\n") if self.path.exists() else [""]

    def _keep(self, lines: list[str]) -> None:
        """Replace the file's contents by these lines, atomically."""
        assert self.path is not None
        with replacing(self.path) as partial:
            partial.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    def _repair(self) -> None:
        """Remove an incomplete last line."""
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
    """Replace floats that are not finite by None (null), recursively."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
