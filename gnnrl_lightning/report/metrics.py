"""metrics.csv: what the loggers of all phases recorded, which a run that goes on adds to."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger
from torch import Tensor

from gnnrl_lightning.files import replacing


class MetricsFile(Logger):
    """A table of metrics: a row for what is logged at once, a column for each name.

    Lightning's own CSVLogger begins a file anew. This one keeps the rows that it finds, but for a last one that was
    cut off, and whoever is killed while it writes leaves all earlier rows.

    Args:
        path: The file, created with the first row.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._new: list[dict[str, Any]] = []
        self._columns: list[str] = []  # of the file; none until it has been written once

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.stem

    @property
    def version(self) -> str:
        """There are no versions."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """These are in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Tensor | float], step: int | None = None) -> None:
        """Record a row, to be written by `save`."""
        row = {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()}
        if row:
            self._new.append(row | {"step": step})

    @rank_zero_only
    def save(self) -> None:
        """Write what has been recorded."""
        if not self._new:
            return
        rows, self._new = self._new, []
        if {name for row in rows for name in row} <= {*self._columns}:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self._columns).writerows(rows)
        else:
            self._write([*self._rows(), *rows])

    @rank_zero_only
    def go_on(self, epochs: int, prefix: str = "") -> None:
        """Forget what a phase logged after its last complete epoch, and all that followed.

        Args:
            epochs: Complete epochs of the phase.
            prefix: What stands before the names of its metrics.
        """
        rows = self._rows()
        ends = [(number, float(row[f"{prefix}epoch"])) for number, row in enumerate(rows) if row.get(f"{prefix}epoch")]
        first = min((number for number, _ in ends), default=len(rows))
        kept = max((number + 1 for number, epoch in ends if epoch < epochs), default=first)
        if kept < len(rows):
            self._write(rows[:kept])

    def _rows(self) -> list[dict[str, Any]]:
        """The rows of the file, without a last one that was cut off."""
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))

    def _write(self, rows: list[dict[str, Any]]) -> None:
        """Let the file have these rows alone."""
        self._columns = sorted({name for row in rows for name in row})
        with replacing(self.path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
