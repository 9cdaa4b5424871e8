"""Experiments that come with the package, by name: `--config digits`."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from gnnrl_lightning.errors import UserError, one_line, suggestion

OPTIONS = ("-c", "--config")
PACKAGE = Path(__file__).parents[1]
INSTALLED = PACKAGE / "experiments"
FOLDER = INSTALLED if INSTALLED.is_dir() else PACKAGE.parent / "experiments"
"""Where the experiments are: in an installed package, else in a clone of the repository."""


def with_experiments(arguments: Sequence[str]) -> list[str]:
    """Replace names of experiments in `--config NAME` by their files.

    Args:
        arguments: The command line without the program's name.

    Raises:
        UserError: There is neither such a file nor such an experiment, or the file is not text.
    """
    found, option = [], ""
    for argument in arguments:
        if option in OPTIONS:
            argument = config_file(argument)
        elif argument.startswith(f"{OPTIONS[1]}="):
            argument = f"{OPTIONS[1]}={config_file(argument.partition('=')[2])}"
        found.append(argument)
        option = argument
    return found


def config_file(given: str) -> str:
    """Return the file for a value of `--config`; YAML itself, and what is no name, stays as it is."""
    if not given or set("\n{:,") & set(given):
        return given
    path = Path(given)
    # W&B puts a folder of the name of an experiment where it runs.
    if (path.is_dir() or not path.exists()) and path.name == given and not path.suffix:
        path = next(FOLDER.glob(f"{glob.escape(given)}.yaml"), path)
    if not path.is_file():
        what = "is not a regular file" if path.exists() else "there is no such file"
        known = sorted(each.stem for each in FOLDER.glob("*.yaml"))
        expected = f"expected a YAML file, or one of {', '.join(known)}"
        raise UserError(f"--config {given}: {what}{suggestion(path.stem, known)}: {expected}")
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"--config {given} is not text in UTF-8 ({one_line(error)}): save it as UTF-8") from error
    return str(path)
