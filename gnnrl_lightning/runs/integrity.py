"""Check the files of an interrupted run before it is resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gnnrl_lightning.artifacts.integrity import check_files as check_artifact
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.files import unchanged
from gnnrl_lightning.report.metrics import read_rows
from gnnrl_lightning.rl.environments import AGENT
from gnnrl_lightning.runs.folder import DELIVERED, DENSE, POLICY, SENSITIVITY, RunFolder
from gnnrl_lightning.runs.settings import check_settings

DELETE = {
    DENSE: "the dense network is trained again",
    SENSITIVITY: "the sensitivity is measured again",
    AGENT: "the agent starts again, and evaluations in the journal are not repeated",
    POLICY: "the search resumes from agent.ckpt",
    **dict.fromkeys(DELIVERED, "this network is fine-tuned again"),
}
"""Phase -> what is repeated if its file is deleted."""

SAVED_AGAIN = "nothing is searched or trained again, and the network of this stage is saved again from"
"""What it costs to delete the result of a stage before the last one."""


def check_files(folder: RunFolder) -> None:
    """Refuse a run whose files are not as they were written.

    The journal has checksums of its own, see `gnnrl_lightning.evaluation.journal`.

    Args:
        folder: Folder of the run; no other process writes to it.

    Raises:
        UserError: A file was damaged or edited; the message has the remedy and what it costs.
    """
    if not _is_unchanged(folder.began):
        raise UserError(
            f"{folder.began} is missing or was changed since the run began, perhaps by an earlier release: begin "
            "another run, fit --config FILE --run.name NAME"
        )
    check_settings(folder)
    checkpoints = [path for each in (folder, *folder.stages) for path in sorted(each.checkpoints.glob("*"))]
    for path in [*checkpoints, *sorted(folder.comparison.glob("*.ckpt"))]:
        if path.suffix in (".safetensors", ".ckpt") and not _is_unchanged(path):
            cost = DELETE.get(path.stem, "what it holds is made again")
            raise UserError(f"{path} was changed or damaged since it was written: delete it to go on; {cost}")
    for stage in folder.stages:
        if stage.result.is_file():
            _check_stage(stage)
    read_rows(folder.metrics)


def _check_stage(stage: RunFolder) -> None:
    """Refuse a finished stage whose artifact, which the next one prunes, is not as it was saved."""
    figures = read_figures(stage.result, f"{SAVED_AGAIN} {stage.checkpoints}")
    try:
        saved = check_artifact(stage.pruned)["figures"]
        wrong = "" if all(figures.get(name) == value for name, value in saved.items()) else "it is of another stage"
    except UserError as error:
        wrong = str(error).split(": ")[0]  # without what to do with an artifact that stands alone
    if wrong:
        raise UserError(
            f"{stage.pruned} cannot be used ({wrong}): delete it and {stage.result} to go on; {SAVED_AGAIN} "
            f"{stage.checkpoints}"
        )


def read_result(folder: RunFolder) -> dict[str, Any]:
    """Read the figures of a finished run.

    Args:
        folder: Folder of the run.

    Raises:
        UserError: They were damaged or edited.
    """
    return read_figures(folder.result, "the networks are tested and saved again")


def read_figures(path: Path, cost: str) -> dict[str, Any]:
    """Read a JSON file that was written with a checksum.

    Args:
        path: The file.
        cost: What is repeated if it is deleted, for the message.

    Raises:
        UserError: It was damaged or edited.
    """
    if not _is_unchanged(path):
        raise UserError(f"{path} was changed or damaged since it was written: delete it to go on; {cost}")
    return json.loads(path.read_text(encoding="utf-8"))


def _is_unchanged(path: Path) -> bool:
    return path.is_file() and unchanged(path)
