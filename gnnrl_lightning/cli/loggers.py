"""Short names of loggers: `--trainer.logger tensorboard`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

OPTION = "--trainer.logger"
LOGGERS: dict[str, dict[str, Any]] = {
    "tensorboard": {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": "runs", "name": "tensorboard"},
    },
    "wandb": {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": {"project": "gnnrl_lightning"}},
}
"""Short name -> the configuration it stands for."""


def with_loggers(arguments: Sequence[str]) -> list[str]:
    """Return a command line with the configurations of loggers in place of their short names.

    Args:
        arguments: The command line without the program's name.
    """
    found, before = [], ""
    for argument in arguments:
        option, _, value = argument.partition("=")
        if before == OPTION and argument in LOGGERS:
            found.append(json.dumps(LOGGERS[argument]))
        elif option == OPTION and value in LOGGERS:
            found.append(f"{OPTION}={json.dumps(LOGGERS[value])}")
        else:
            found.append(argument)
        before = argument
    return found
