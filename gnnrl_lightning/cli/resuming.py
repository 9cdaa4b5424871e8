"""The run that `--resume FOLDER` resumes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from gnnrl_lightning.cli.subcommands import PROGRAM, SUBCOMMANDS
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.report.metrics import RESULT, read_rows
from gnnrl_lightning.runs.folder import DENSE, RunFolder

OPTION = "--resume"


def resumed_run(arguments: Sequence[str]) -> RunFolder | None:
    """Return the run to resume, or None if the command line does not ask to resume one.

    Args:
        arguments: The command line without the program's name.

    Raises:
        UserError: There are other options as well, or the folder is not the folder of a run of this subcommand.
    """
    if not any(argument.partition("=")[0] == OPTION for argument in arguments):
        return None
    subcommand = arguments[0]
    if subcommand not in SUBCOMMANDS or not SUBCOMMANDS[subcommand].resumes:
        return None
    given = [part for argument in arguments[1:] for part in argument.split("=", argument.startswith(f"{OPTION}="))]
    if len(given) != 2 or given[0] != OPTION:
        raise UserError(
            f"{OPTION} expects the folder of a run and no other options: a resumed run uses its own config.yaml"
        )
    folder = RunFolder(Path(given[1]))
    if not folder.config.is_file():
        raise UserError(f"{folder.path} is not the folder of a run (it has no config.yaml): give one of {subcommand}")
    name = subcommand_of(folder)
    if name not in (subcommand, None):
        known = SUBCOMMANDS.get(name)
        remedy = f"use {name} {OPTION}" if known is not None and known.resumes else f"give one of {subcommand}"
        raise UserError(f"{folder.path} is a run of {name}: expected one of {subcommand}; {remedy}")
    return folder


def is_finished(folder: RunFolder) -> bool:
    """Whether a run of `fit`, `pretrain` or `finetune` has nothing left to do: its result is saved and logged."""
    trained = folder.weights(DENSE).exists() or folder.pruned.exists()
    saved = folder.result.exists() or (trained and subcommand_of(folder) != "fit")
    return saved and _is_logged(folder)


def _is_logged(folder: RunFolder) -> bool:
    """Whether the table of metrics ends with a result, which a run logs last; also if the table is gone or damaged."""
    try:
        rows = read_rows(folder.metrics)
    except UserError:
        return True
    return not rows or any(value for name, value in rows[-1].items() if name.startswith(RESULT))


HEADER = f"# {PROGRAM} "


def with_subcommand(config: str, subcommand: str) -> str:
    """Prepend a comment line with the subcommand to a configuration."""
    return f"{HEADER}{subcommand} --config\n{config}"


def subcommand_of(folder: RunFolder) -> str | None:
    """Return the subcommand in the first line of a run's configuration, or None if there is none."""
    with folder.config.open(encoding="utf-8", errors="replace") as file:
        first = file.readline()
    words = first.removeprefix(HEADER).split() if first.startswith(HEADER) else []
    return words[0] if words else None


def same_wandb_runs(trainer: Namespace, ids: Sequence[str]) -> None:
    """Configure the W&B loggers of a trainer to resume earlier W&B runs.

    Args:
        trainer: The configuration of `trainer`; changed in place.
        ids: Ids of the W&B runs, in the order of the loggers.
    """
    loggers = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
    of_wandb = [item for item in loggers if isinstance(item, Namespace) and item.class_path.endswith("WandbLogger")]
    for item, run in zip(of_wandb, ids, strict=False):
        item.init_args.id = run


def refuse_unfinished(folder: RunFolder, subcommand: str) -> None:
    """Refuse to begin a run in the folder of an interrupted one, and say how that one is resumed.

    Raises:
        UserError: The folder has an interrupted run of the same subcommand.
    """
    if not SUBCOMMANDS[subcommand].resumes or not folder.config.is_file() or subcommand_of(folder) != subcommand:
        return
    if not is_finished(folder):
        raise UserError(
            f"run folder {folder.path} has an unfinished run: resume it with {subcommand} {OPTION} "
            f"{shlex.quote(str(folder.path))}, choose another name, or pass --overwrite"
        )
