"""The journal: every evaluation, written down as it happens."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gnnrl_lightning.errors import UserError


class Journal:
    """Append-only list of records, one JSON line each; a run that is killed loses at most the last line.

    Args:
        path: File to append to, created with the first record; None keeps the records in memory only.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._records: list[dict[str, Any]] = []

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record and flush it to the disk; floats that are not finite become null."""
        line = json.dumps({key: _finite(value) for key, value in record.items()}, allow_nan=False)
        if self.path is None:
            self._records.append(json.loads(line))
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All records in the order they were added, without a last line that was cut off.

        Raises:
            UserError: If a line before the last is not a JSON object.
        """
        if self.path is None:
            return list(self._records)
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").split("\n")
        # What follows the last newline is empty, or a record whose writing was interrupted.
        return [self._parse(number, line) for number, line in enumerate(lines[:-1], 1)]

    def _parse(self, number: int, line: str) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"journal {self.path} is damaged in line {number}: {error.msg}") from error
        if not isinstance(record, dict):
            raise UserError(f"journal {self.path} is damaged in line {number}: not a JSON object")
        return record


def _finite(value: Any) -> Any:
    """The value, or None (null) for a float that JSON has no number for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
