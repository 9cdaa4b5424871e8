"""Tables of the times of operators: measured on a grid of channels, kept on disk, or given by the user.

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
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from gnnrl_lightning.cost.latency import Grid, Use
from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.files import replacing
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.speed.backend import Backend, Cell, Shaped
from gnnrl_lightning.speed.backends import EAGER

COLUMNS = ("operator", "inputs", "outputs", "milliseconds")

FORMAT = 2
"""Version of the files in the cache; those of other versions have other names."""

MOST_CHANNELS = 2**31 - 1

ROOM = 2**16
"""Bytes that must fit into the folder of the cache before anything is measured: tables of large networks."""

NO_TABLE = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError, csv.Error)
"""What reading something else than a table raises."""


@dataclass(frozen=True)
class Wanted:
    """A grid that a network needs.

    Attributes:
        form: The operator, apart from its channels.
        inputs: Input channels of the grid, ascending.
        outputs: Output channels of the grid, ascending.
    """

    form: Shaped
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def wanted_grids(
    graph: ComputationGraph, network: nn.Module, backend: Backend = EAGER
) -> tuple[list[Use], dict[str, Wanted]]:
    """Return the operators of a network that take time, and the grids from which their times are interpolated.

    Args:
        graph: The traced network.
        network: The network.
        backend: What runs it.
    """
    found = backend.uses(graph, network)
    dense, smallest = (
        graph.channels(widths[None])[0].tolist() for widths in (graph.widths, torch.ones_like(graph.widths))
    )
    ends: dict[str, tuple[set[int], set[int]]] = {}
    pruned: dict[str, list[bool]] = {}
    for use, _ in found:
        maps = (use.source, use.target)
        for place, number in enumerate(maps):
            known = ends.setdefault(use.key, (set(), set()))
            known[place].add(0 if number is None else dense[number])
            free = pruned.setdefault(use.key, [False, False])
            free[place] |= number is not None and smallest[number] < dense[number]
    wanted = {}
    for use, form in found:
        inputs, outputs = (_points(*each, backend.points) for each in zip(ends[use.key], pruned[use.key], strict=True))
        wanted[use.key] = Wanted(form, inputs, outputs)
    return [use for use, _ in found], wanted


def _points(dense: set[int], pruned: bool, points: tuple[int, ...]) -> tuple[int, ...]:
    """Return the grid points of an axis: all dense numbers of channels and, if they can be pruned, smaller ones."""
    smaller = {point for point in points if point < max(dense)} if pruned else set[int]()
    return tuple(sorted(dense | smaller))


def measured_grids(
    wanted: Mapping[str, Wanted], measure: Callable[[Sequence[Cell]], Sequence[float]]
) -> dict[str, Grid]:
    """Measure grids.

    Args:
        wanted: Key -> grid.
        measure: Returns the milliseconds of operators.
    """
    cells = [(item.form, one, other) for item in wanted.values() for one in item.inputs for other in item.outputs]
    times = iter(measure(cells))
    return {
        key: Grid(item.inputs, item.outputs, tuple(tuple(next(times) for _ in item.outputs) for _ in item.inputs))
        for key, item in wanted.items()
    }


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


def covering(grids: Mapping[str, Grid], wanted: Mapping[str, Wanted]) -> dict[str, Grid]:
    """Return the grids that have all channels of those wanted."""
    return {
        key: grids[key]
        for key, item in wanted.items()
        if key in grids and {*item.inputs} <= {*grids[key].inputs} and {*item.outputs} <= {*grids[key].outputs}
    }


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
        wanted: The grids, see `wanted_grids`.
    """
    with replacing(Path(path)) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for key, item in wanted.items():
            writer.writerows([key, one, other, ""] for one in item.inputs for other in item.outputs)
