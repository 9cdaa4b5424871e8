"""What `fit --resume FOLDER` goes on with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.job.runs import RunFolder

OPTION = "--resume"


def resumed_run(arguments: Sequence[str]) -> RunFolder | None:
    """The run that the command line asks to go on with; None: it asks for a new one.

    Args:
        arguments: The command line without the program.

    Raises:
        UserError: There are other options beside it, or the folder is not that of a run of `fit`.
    """
    if not any(argument.partition("=")[0] == OPTION for argument in arguments) or arguments[0] != "fit":
        return None
    given = [part for argument in arguments[1:] for part in argument.split("=", argument.startswith(f"{OPTION}="))]
    if len(given) != 2 or given[0] != OPTION:
        raise UserError(f"{OPTION} takes the folder of a run and nothing beside it: the run is as its config.yaml says")
    folder = RunFolder(Path(given[1]))
    if not folder.config.is_file():
        raise UserError(f"{folder.path} is not the folder of a run (it has no config.yaml): nothing to go on with")
    name = subcommand_of(folder.config.read_text(encoding="utf-8"))
    if name not in ("fit", None):
        raise UserError(f"{folder.path} is the folder of {name}: only runs of fit go on with {OPTION}")
    return folder


HEADER = "# python -m gnnrl_lightning "


def with_subcommand(config: str, subcommand: str) -> str:
    """A configuration that says whose it is, in its first line."""
    return f"{HEADER}{subcommand} --config\n{config}"


def subcommand_of(config: str) -> str | None:
    """The subcommand that a configuration was written by; None: it does not say."""
    first = config.partition("\n")[0]
    return first.removeprefix(HEADER).split()[0] if first.startswith(HEADER) else None


def same_wandb_runs(trainer: Namespace, ids: Sequence[str]) -> None:
    """Let the W&B loggers of a trainer's configuration go on with earlier W&B runs.

    Args:
        trainer: The configuration of `trainer`; changed in place.
        ids: Ids of the W&B runs in the order of their loggers.
    """
    loggers = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
    of_wandb = [item for item in loggers if isinstance(item, Namespace) and item.class_path.endswith("WandbLogger")]
    for item, run in zip(of_wandb, ids, strict=False):
        item.init_args.id = run
