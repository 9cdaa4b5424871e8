"""The arguments of `compress` and `compress_by_score`, checked before anything is done with them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import ExampleData
from gnnrl_lightning.errors import UserError, first_line
from gnnrl_lightning.job.groups import GroupOptions
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.options import flat
from gnnrl_lightning.rl.learners.base import GraphLearner

LARGEST, LARGEST_SEED = 2**31 - 1, 2**32 - 1

KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "network": ((nn.Module, NetworkSpec), "a network, or a NetworkSpec of its class path"),
    "data": ((ExampleData,), "a data module, such as Digits() or ImageFolder(folder)"),
    "budget": ((Budget,), "a Budget, such as Budget(macs=0.5)"),
    "by": ((GraphLearner, str), "an agent, such as GNNRL(), or the name of a method"),
    "options": ((Options,), "Options, or None for the defaults"),
    "groups": ((GroupOptions,), "GroupOptions, or None"),
    "evaluations": ((int,), "a whole number"),
    "folder": ((str, Path), "the path of a folder, or None"),
    "seed": ((int,), f"a whole number from 0 to {LARGEST_SEED}"),
}
"""Argument -> its types, and what to say of others."""

OPTIONAL = ("by", "options", "groups", "evaluations", "folder")
"""Arguments that may be None."""


def check_kinds(**given: Any) -> None:
    """Refuse arguments of other types than expected.

    Args:
        **given: Argument -> value, by the names in `KINDS`.

    Raises:
        UserError: An argument has another type, or a number is out of range or not finite.
    """
    for name, value in given.items():
        kinds, expected = KINDS[name]
        right = isinstance(value, kinds) and not isinstance(value, bool)
        if not right and not (value is None and name in OPTIONAL):
            raise UserError(f"{name} is a {type(value).__name__}: expected {expected}")
    options = given.get("options")
    numbers = {"evaluations": given.get("evaluations")} | {
        f"options.{'.'.join(key)}": value for key, value in flat({} if options is None else asdict(options)).items()
    }
    for name, value in numbers.items():
        if isinstance(value, (int, float)) and not abs(value) <= LARGEST:
            raise UserError(f"{name} is {value}: expected a number of at most {LARGEST:,}")
    if not 0 <= given.get("seed", 0) <= LARGEST_SEED:
        raise UserError(f"seed is {given['seed']}: expected {KINDS['seed'][1]}")
    if "\0" in str(given.get("folder", "")):
        raise UserError(f"folder is {given['folder']!r}: expected the path of a folder, without null bytes")


def as_device(given: torch.device | str) -> torch.device:
    """Return a device on which this machine computes.

    Args:
        given: The device, or its name.

    Raises:
        UserError: There is no such device here.
    """
    try:
        device = torch.device(given)
        if device.type == "meta":
            raise RuntimeError("it computes nothing")
        torch.zeros(1, device=device)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise UserError(
            f"device is {str(given)!r}, which cannot be used ({first_line(error)}): expected cpu, or cuda where there "
            "is a GPU"
        ) from error
    return device
