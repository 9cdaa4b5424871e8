"""What a part of a job has found, in a file of the run: a run that is resumed does not do it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gnnrl_lightning.files import replacing
from gnnrl_lightning.processes import from_first, rank
from gnnrl_lightning.runs.integrity import read_figures


def once(path: Path | None, cost: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what the file has; if there is none, make it and write the file. It is the same in all processes.

    Args:
        path: The file; None: it is made, and not kept.
        cost: What is repeated if the file is deleted, for the message.
        make: Called in all processes; what the first one returns counts, in plain JSON types.

    Raises:
        UserError: The file was damaged or edited.
    """
    if path is not None and from_first(path.is_file()):
        return from_first(read_figures(path, cost) if rank() == 0 else {})
    found = from_first(make())
    if path is not None and rank() == 0:
        write_json(path, found)
    return found


def write_json(path: Path, contents: Any, indent: int | None = None) -> None:
    """Write a file of a run, with its checksum; it is complete or absent."""
    with replacing(path, checksum=True) as partial:
        partial.write_text(json.dumps(contents, indent=indent) + "\n", encoding="utf-8")
