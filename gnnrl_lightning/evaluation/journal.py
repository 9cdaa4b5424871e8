"""The journal: an append-only log of all evaluations of a search."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.files import finite, os_errors, replacing, text_of

CHECK = "check"
"""Key of a line's checksum."""


class Journal:
    """Append-only list of records, one JSON line each; an interrupted run loses at most the last line.

    A resumed journal replays its records in order as long as requests match; the first mismatch drops the remaining
    records.

    The last entry of each line, "check", is a checksum of the record and of all before it, so that lines which were
    damaged, edited, removed or taken from another run are noticed.

    Args:
        path: File to append to, created with the first record; None keeps the records in memory.
        resume: Whether to replay the records of the file. An incomplete last line is removed with a warning.
        start: What the records are about, any text; the checksums depend on it. None: unknown, not checked.

    Raises:
        UserError: The resumed file is not a journal, is damaged, or was begun with another `start`.
    """

    def __init__(self, path: str | Path | None = None, resume: bool = False, start: str | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._start, self._last = start, start or ""
        self._records: list[dict[str, Any]] = []
        self._before: deque[tuple[dict[str, Any], str]] = deque()
        if self.path is None:
            return
        if resume:
            self._repair()
            self._before.extend(self._checked())
        else:
            self._last = next((check for _, check in [*self._checked()][-1:]), self._last)

    @property
    def before(self) -> list[dict[str, Any]]:
        """The records of the resumed file that have not been replayed yet."""
        return [record for record, _ in self._before]

    def take(self, **expected: Any) -> dict[str, Any] | None:
        """The next record of the resumed file if it has the expected values, else None.

        A record with other values is dropped together with all later ones: the search has diverged from the file.
        """
        if not self._before:
            return None
        record, check = self._before[0]
        if all(record.get(key) == value for key, value in expected.items()):
            self._before.popleft()
            self._last = check
            return record
        self._drop_rest()
        return None

    def append(self, record: Mapping[str, Any]) -> None:
        """Append a record and flush it to disk; floats that are not finite become null."""
        line = json.dumps(finite(record), allow_nan=False)
        self._drop_rest()
        if self.path is None:
            self._records.append(json.loads(line))
            return
        check = _check(self._last, line)
        with os_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**json.loads(line), CHECK: check}) + "\n")
            file.flush()
            os.fsync(file.fileno())  # a later checkpoint may count this record and survive a crash
        self._last = check

    def read(self) -> list[dict[str, Any]]:
        """All records in order, without an incomplete last line.

        Raises:
            UserError: As for a resumed file.
        """
        return list(self._records) if self.path is None else [record for record, _ in self._checked()]

    def _checked(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Yield the records with their checksums."""
        last = self._start or ""
        # The text after the last newline is empty or an incomplete record.
        for number, line in enumerate(self._lines()[:-1], 1):
            record = self._parse(number, line)
            found, last = str(record.pop(CHECK, None)), _check(last, json.dumps(record))
            if number == 1 and self._start is None:
                last = found
            if found != last:
                raise self._damaged(f"line {number} was changed, or is of another network, holdout or release")
            yield record, last

    def _lines(self) -> list[str]:
        assert self.path is not None
        try:
            return text_of(self.path).split("\n") if self.path.exists() else [""]
        except (ValueError, IsADirectoryError) as error:
            raise self._damaged(one_line(error)) from error

    def _keep(self, lines: list[str]) -> None:
        """Replace the file's contents by these lines, atomically."""
        assert self.path is not None
        with replacing(self.path) as partial:
            partial.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    def _repair(self) -> None:
        """Remove an incomplete last line."""
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
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"line {number}: {one_line(error)}") from error
        if not isinstance(record, dict):
            raise self._damaged(f"line {number}: not a JSON object")
        return record

    def _damaged(self, reason: str) -> UserError:
        return UserError(
            f"journal {self.path} is damaged ({reason}): restore it, or delete it to go on; evaluations are repeated"
        )


def _check(last: str, line: str) -> str:
    """Checksum of a line and, through the one of the line before it, of all earlier lines."""
    return hashlib.sha256(f"{last}\n{line}".encode()).hexdigest()[:16]
