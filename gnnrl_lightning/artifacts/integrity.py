"""Hashes of the files of an artifact: they detect damage, not malice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gnnrl_lightning.artifacts.recipe import files_of, read_recipe
from gnnrl_lightning.checks import shown
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.files import sha256


def check_files(folder: str | Path) -> dict[str, Any]:
    """Compare all files of an artifact with their checksums; none is loaded.

    Args:
        folder: Folder of the artifact.

    Returns:
        The recipe.

    Raises:
        UserError: A file is missing or damaged.
    """
    recipe = read_recipe(folder)
    for name in recipe["formats"]:
        file_of(Path(folder), recipe, name)
    return recipe


def file_of(folder: Path, recipe: Mapping[str, Any], name: str) -> Path:
    """Return the file of a format after checking the hashes of all of its files.

    Args:
        folder: Folder of the artifact.
        recipe: The contents of its recipe.json.
        name: Name of the format.

    Raises:
        UserError: A file is missing or damaged, or the artifact was not saved in this format.
    """
    if name not in recipe["formats"]:
        raise UserError(
            f"{folder} was saved as {', '.join(recipe['formats'])}, not as {shown(name)}: save it in that format, too"
        )
    for file in files_of(recipe["formats"][name]):
        _check(folder / file, recipe)
    return folder / recipe["formats"][name]["file"]


def _check(path: Path, recipe: Mapping[str, Any]) -> None:
    expected = recipe["sha256"].get(path.name)
    if not path.is_file():
        raise UserError(f"{path} is missing: copy the whole folder, or save the artifact again")
    found = sha256(path)
    if found != expected:
        wanted = str(expected)[:12]
        raise UserError(
            f"{path} is damaged: its SHA-256 is {found[:12]}..., the recipe says {wanted}...; save it again"
        )
