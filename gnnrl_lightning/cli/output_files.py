"""Files that a subcommand writes where the user says: checked before anything is done, and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.files import os_errors


def check_file(option: str, path: str | None) -> None:
    """Refuse a file to write that is a folder, or whose folder does not exist.

    Args:
        option: The option that names it, for the message.
        path: The file; None: nothing is written.

    Raises:
        UserError: It cannot be written.
    """
    if path is None:
        return
    if Path(path).is_dir():
        raise UserError(f"{option} {path} is a folder: expected the name of a file to write")
    if not Path(path).absolute().parent.is_dir():
        raise UserError(f"{option} {path}: folder {Path(path).parent} does not exist: create it, or give another")


def write_json(path: str, contents: Any) -> None:
    """Write JSON to a file."""
    with os_errors(Path(path)):
        Path(path).write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
