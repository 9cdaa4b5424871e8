"""Checks of all values of a configuration, made before anything is created from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

from jsonargparse import Namespace

from gnnrl_lightning.checks import LARGEST, LARGEST_SEED
from gnnrl_lightning.cli.trainer import check_settings
from gnnrl_lightning.cost.metrics import METRICS
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.job.options import Options

UNBOUNDED = (*(f"budget.{name}" for name in (*METRICS, "limits")), "seed_everything")
"""Keys of larger numbers, which are checked by themselves."""

SECTIONS = (*get_type_hints(Options), "network", "budget", "groups", "compare", "run", "model", "trainer")
"""Keys with further keys in them."""


def check_values(config: Any, subcommand: str) -> None:
    """Refuse values that would be refused late or not at all, such as seeds and settings of the trainer.

    Args:
        config: The configuration of a subcommand; automatic settings of the trainer are replaced in place.
        subcommand: Its name.

    Raises:
        UserError: A value is refused.
    """
    for name in SECTIONS:
        if not isinstance(config[name], Namespace):
            raise UserError(f"{name} is {config[name]!r}: expected its keys with their values, see --help")
    for name, value in _values(config):
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{name} is {value}: expected a finite number")
        if isinstance(value, int) and abs(value) > LARGEST and not name.startswith(UNBOUNDED):
            raise UserError(f"{name} is {value}: expected a number of at most {LARGEST:,}")
        if isinstance(value, str) and "\0" in value:
            raise UserError(f"{name} is {value!r}: expected text without null bytes")
    seed = config["seed_everything"]
    if seed is not True and (seed is False or not 0 <= seed <= LARGEST_SEED):
        raise UserError(f"seed_everything is {seed}: expected 0 to {LARGEST_SEED}, or true for a random one")
    if config.get("resume") is not None:
        raise UserError(
            "resume is not a key of a configuration: give --resume FOLDER on the command line, without other options"
        )
    check_settings(config, subcommand)


def _values(part: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the single values of a configuration by key."""
    if isinstance(part, Namespace):
        part = vars(part)
    if isinstance(part, Mapping):
        for key, value in part.items():
            yield from _values(value, f"{name}.{key}" if name else str(key))
    elif isinstance(part, (list, tuple)):
        for value in part:
            yield from _values(value, name)
    else:
        yield name, part
