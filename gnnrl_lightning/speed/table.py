"""Files of the times of operators: what the cache keeps, or the user gives.

A file is JSON, as the cache has it, or CSV with the columns operator, inputs, outputs, milliseconds:

```
operator,inputs,outputs,milliseconds
conv2d kernel_size 3x3 stride 1x1 padding 1x1 32x32,8,16,0.41
relu 32x32,0,16,0.02
```

`inputs` is 0 where the time depends on the outputs alone. The rows of an operator make a grid: every `inputs` with
every `outputs`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gnnrl_lightning.cost.grid import Grid
from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.files import replacing
from gnnrl_lightning.speed.grids import Wanted

COLUMNS = ("operator", "inputs", "outputs", "milliseconds")

MOST_CHANNELS = 2**31 - 1

NO_TABLE = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError, csv.Error)
"""What reading something else than a table raises."""


def as_record(grids: Mapping[str, Grid]) -> dict[str, Any]:
    """Grids in plain JSON types."""
    return {
        key: {
            "inputs": list(grid.inputs),
            "outputs": list(grid.outputs),
            "milliseconds": [list(row) for row in grid.milliseconds],
        }
        for key, grid in grids.items()
    }


def from_record(record: Mapping[str, Any]) -> dict[str, Grid]:
    """Grids from plain JSON types.

    Raises:
        ValueError: A grid is not one.
    """
    return {key: _grid(key, item["inputs"], item["outputs"], item["milliseconds"]) for key, item in record.items()}


def _grid(key: str, inputs: Sequence[Any], outputs: Sequence[Any], times: Sequence[Sequence[Any]]) -> Grid:
    rows = tuple(tuple(float(value) for value in row) for row in times)
    axes = tuple(int(value) for value in inputs), tuple(int(value) for value in outputs)
    if not all(axes) or any(list(axis) != sorted(set(axis)) or axis[0] < 0 for axis in axes):
        raise ValueError(f"{key!r} has channels that do not ascend")
    if any(axis[-1] > MOST_CHANNELS for axis in axes):
        raise ValueError(f"{key!r} has more than {MOST_CHANNELS:,} channels")
    if len(rows) != len(axes[0]) or any(len(row) != len(axes[1]) for row in rows):
        raise ValueError(f"{key!r} has not a time for each pair of inputs and outputs")
    if not all(0 <= value < float("inf") for row in rows for value in row):
        raise ValueError(f"{key!r} has times that are negative or not finite")
    return Grid(*axes, rows)


def read_table(path: str | Path) -> dict[str, Grid]:
    """Read a table, JSON or CSV by its ending.

    Args:
        path: The file.

    Raises:
        UserError: It cannot be read, or is no such table.
    """
    path = Path(path).expanduser()
    if path.exists() and not path.is_file():
        raise UserError(f"latency.table {path} is no regular file: expected CSV or JSON")
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".csv":
            return from_record(_from_rows(list(csv.DictReader(text.splitlines(), strict=True))))
        return from_record(json.loads(text)["operators"])
    except OSError as error:
        raise UserError(
            f"latency.table {path} cannot be read ({one_line(error)}): expected a file, CSV or JSON"
        ) from error
    except NO_TABLE as error:
        raise UserError(
            f"latency.table {path} is no table of operators ({one_line(error)}): expected CSV with the columns "
            f"{', '.join(COLUMNS)}, or JSON as in latency.cache"
        ) from error


def _from_rows(rows: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    times: dict[str, dict[tuple[int, int], float]] = {}
    for row in rows:
        key, one, other, value = (row[name] for name in COLUMNS)
        cell = int(one or 0), int(other)
        if cell in times.setdefault(key, {}):
            raise ValueError(f"{key!r} has two rows for {cell[0]} inputs and {cell[1]} outputs")
        times[key][cell] = float(value)
    record = {}
    for key, cells in times.items():
        inputs, outputs = (sorted({cell[place] for cell in cells}) for place in (0, 1))
        missing = [(one, other) for one in inputs for other in outputs if (one, other) not in cells]
        if missing:
            raise ValueError(f"{key!r} lacks the row for {missing[0][0]} inputs and {missing[0][1]} outputs")
        record[key] = {
            "inputs": inputs,
            "outputs": outputs,
            "milliseconds": [[cells[one, other] for other in outputs] for one in inputs],
        }
    return record


def write_template(path: str | Path, wanted: Mapping[str, Wanted]) -> None:
    """Write the operators and channels that a table of a network must have, with empty times, as CSV.

    Args:
        path: The file.
        wanted: The grids, see `gnnrl_lightning.speed.grids.wanted_grids`.
    """
    with replacing(Path(path)) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for key, item in wanted.items():
            writer.writerows([key, one, other, ""] for one in item.inputs for other in item.outputs)
