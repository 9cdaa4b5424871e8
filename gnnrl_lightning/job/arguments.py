"""The arguments of `compress` and `compress_by_score`, checked before anything is done with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from os import PathLike
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import nn

from gnnrl_lightning.checks import LARGEST, LARGEST_SEED, as_path, as_seed, instance, shown, whole
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError, first_line
from gnnrl_lightning.job.group_options import GroupOptions
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.options import flat
from gnnrl_lightning.rl.learners.base import GraphLearner
from gnnrl_lightning.runs.folder import RunFolder, check_place
from gnnrl_lightning.search.methods import Method

KINDS: dict[str, tuple[tuple[Any, ...], str]] = {
    "network": ((nn.Module, NetworkSpec), "a network, or a NetworkSpec of its class path"),
    "data": ((LightningDataModule,), "a data module, such as Digits(), ImageFolder(folder) or one of your own"),
    "budget": ((Budget,), "a Budget, such as Budget(macs=0.5)"),
    "by": (
        (GraphLearner, str, Method, Callable),
        "an agent, such as GNNRL(), or a search method: its name, a Method, or a function (problem, seed)",
    ),
    "options": ((Options,), "Options, or None for the defaults"),
    "groups": ((GroupOptions,), "GroupOptions, or None"),
    "evaluations": ((int,), "a whole number"),
    "examples": ((int,), "a whole number"),
    "folder": ((str, PathLike), "the path of a folder, or None"),
    "seed": ((int,), f"a whole number from 0 to {LARGEST_SEED}"),
    "progress": ((bool,), "true or false"),
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
        if value is None and name in OPTIONAL:
            continue
        right = not isinstance(value, bool) or bool in kinds
        if not right or isinstance(value, type):
            raise UserError(f"{name} is a {type(value).__name__}: expected {expected}")
        instance(name, value, kinds, expected)
    for name in {"evaluations", "examples"} & given.keys():
        if given[name] is not None:
            whole(name, given[name], 1)
    options = given.get("options")
    numbers = {f"options.{'.'.join(key)}": value for key, value in flat(asdict(options) if options else {}).items()}
    for name, value in numbers.items():
        if isinstance(value, (int, float)) and not abs(value) <= LARGEST:
            raise UserError(f"{name} is {value}: expected a number of at most {LARGEST:,}")
    if "seed" in given:
        as_seed("seed", given["seed"])
    if given.get("folder") is not None:
        check_place("folder", as_path("folder", given["folder"], "folder", ", or None"))


def check_folder(folder: RunFolder) -> None:
    """Refuse a folder that does not exist, and one that is not a run's.

    Args:
        folder: Where a part of a job is to write.

    Raises:
        UserError: It is of another type, or does not exist.
    """
    instance("folder", folder, RunFolder, 'a RunFolder, such as RunFolder.create("runs", "mine")')
    if not folder.path.is_dir():
        raise UserError(f"folder {folder.path} does not exist: make it by RunFolder.create")


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
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise UserError(
            f"device is {shown(str(given))}, which cannot be used ({first_line(error)}): expected cpu, or cuda where "
            "there is a GPU"
        ) from error
    return device
