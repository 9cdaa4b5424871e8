"""Short names of loggers: `--trainer.logger tensorboard`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from gnnrl_lightning.errors import UserError

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

    Raises:
        UserError: The package of the logger is not installed.
    """
    found, before = [], ""
    for argument in arguments:
        option, _, value = argument.partition("=")
        if before == OPTION and argument in LOGGERS:
            found.append(_configured(argument))
        elif option == OPTION and value in LOGGERS:
            found.append(f"{OPTION}={_configured(value)}")
        else:
            found.append(argument)
        before = argument
    return found


def _configured(name: str) -> str:
    if find_spec(name) is None:  # both are named after their packages
        raise UserError(f"{OPTION} {name}: its package is not installed; pip install {name}")
    return json.dumps(LOGGERS[name])
