"""A table of errors in a file: tensors without pickle."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from gnnrl_lightning.files import replacing
from gnnrl_lightning.surrogate.sensitivity import ErrorTable


def save_table(table: ErrorTable, path: Path) -> None:
    """Write a table.

    Args:
        table: The table.
        path: The file, `.safetensors`.
    """
    beside = {"ratios": table.ratios, "images": table.images, "passes": table.passes}
    tensors = {"measured": table.measured.contiguous(), "errors": table.errors.contiguous()}
    with replacing(path) as partial:
        save_file(tensors, partial, {"beside": json.dumps(beside)})


def load_table(path: Path) -> ErrorTable:
    """The table that `save_table` wrote, exactly."""
    with safe_open(path, "pt") as file:
        beside = json.loads(file.metadata()["beside"])
        measured, errors = file.get_tensor("measured"), file.get_tensor("errors")
    return ErrorTable(tuple(beside["ratios"]), measured, errors, beside["images"], tuple(beside["passes"]))
