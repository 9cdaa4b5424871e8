"""metrics.csv: the metrics logged in all phases of a run; a resumed run appends to the file."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger
from torch import Tensor

from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.files import os_errors, replacing, text_of

RESULT = "result/"
"""Prefix of the final figures, which are the last row of a run."""

REST = "more"
"""Key of what a row has beyond the columns."""


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a table of metrics, without a truncated last row; no rows if there is no file.

    Args:
        path: The file.

    Raises:
        UserError: It is damaged.
    """
    try:
        text = text_of(path) if path.exists() else ""
        rows = list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines(), restkey=REST, strict=True))
        if any(REST in row or None in row.values() for row in rows):
            raise ValueError("its rows have different lengths")
        for row in rows:
            [float(value) for value in row.values() if value]
    except (ValueError, csv.Error, IsADirectoryError) as error:  # an invalid encoding is a ValueError
        raise UserError(
            f"{path} is damaged ({one_line(error)}): expected a table of metrics; delete it to go on without the "
            "metrics so far"
        ) from error
    return rows


class MetricsFile(Logger):
    """A table of metrics: one row for each call of `log_metrics`, one column for each name.

    Lightning's CSVLogger overwrites an existing file. This one keeps the existing rows, except a truncated last one,
    and an interrupted write leaves all earlier rows intact.

    Args:
        path: The file; created with the first row.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._new: list[dict[str, Any]] = []
        self._columns: list[str] = []  # columns of the file; empty until it has been written once

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.stem

    @property
    def version(self) -> str:
        """The version, empty: the file has none."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Ignore hyperparameters: config.yaml contains them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Tensor | float], step: int | None = None) -> None:
        """Record a row; `save` writes it."""
        row = {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()}
        if row:
            self._new.append(row | {"step": step})

    @rank_zero_only
    def save(self) -> None:
        """Write the recorded rows."""
        if not self._new:
            return
        rows, self._new = self._new, []
        if {name for row in rows for name in row} <= {*self._columns}:
            with os_errors(self.path), self.path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self._columns).writerows(rows)
        else:
            self._write([*read_rows(self.path), *rows])

    @rank_zero_only
    def resume(self, epochs: int, prefix: str = "") -> None:
        """Delete the rows that a phase logged after its last complete epoch, and all later rows.

        Args:
            epochs: Number of complete epochs of the phase.
            prefix: Prefix of the names of its metrics.
        """
        rows = read_rows(self.path)
        ends = [(number, float(row[f"{prefix}epoch"])) for number, row in enumerate(rows) if row.get(f"{prefix}epoch")]
        first = min((number for number, _ in ends), default=len(rows))
        kept = max((number + 1 for number, epoch in ends if epoch < epochs), default=first)
        if kept < len(rows):
            self._write(rows[:kept])

    def _write(self, rows: list[dict[str, Any]]) -> None:
        """Replace the contents of the file by these rows."""
        self._columns = sorted({name for row in rows for name in row})
        with replacing(self.path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
