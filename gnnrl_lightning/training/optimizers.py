"""Optimisers by class path, and the parameter groups that they get."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.registry import resolve

OptimizerSpec = str | dict[str, Any]
"""Class path, or `class_path` and `init_args` (arguments by name)."""

RECOMMENDED: Mapping[str, Mapping[str, Any]] = {"torch.optim.SGD": {"momentum": 0.9, "nesterov": True}}
"""Class path -> arguments of an optimiser that is given without any."""


def make_optimizer(
    given: OptimizerSpec,
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    weight_decay: float,
    decay_all: bool = True,
) -> Optimizer:
    """Create an optimiser.

    Args:
        given: Its class path; with `init_args`, these replace those of `RECOMMENDED`.
        parameters: Those to train.
        learning_rate: Largest learning rate.
        weight_decay: Weight decay.
        decay_all: Whether it applies to all parameters; if not, only to those with several dimensions, which norms and
            biases do not have.

    Raises:
        UserError: The class cannot be imported, is no optimiser, or refuses its arguments.
    """
    path, arguments = _parts(given)
    found = resolve(path, "optimizer")
    if not (isinstance(found, type) and issubclass(found, Optimizer)):
        raise UserError(f"optimizer {path!r} is no torch.optim.Optimizer: give, for example, torch.optim.AdamW")
    taken = inspect.signature(found).parameters
    if missing := [name for name in ("lr", "weight_decay") if name not in taken]:
        raise UserError(f"optimizer {path!r} takes no {' and no '.join(missing)}: give one that does")
    every = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [{"params": every, "weight_decay": weight_decay}]
    if not decay_all:
        several = [parameter for parameter in every if parameter.dim() > 1]
        single = [parameter for parameter in every if parameter.dim() <= 1]
        parts = ((several, weight_decay), (single, 0.0))
        groups = [{"params": part, "weight_decay": decay} for part, decay in parts if part]
    try:
        return found(groups, **{"lr": learning_rate, **arguments})
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer {path!r} refuses its arguments {arguments}: {one_line(error)}") from error


def check_optimizer(given: OptimizerSpec) -> None:
    """Refuse an optimiser that `make_optimizer` would refuse for a single weight matrix.

    Raises:
        UserError: As `make_optimizer`.
    """
    make_optimizer(given, [nn.Parameter(torch.zeros(1, 1))], 0.1, 0.0)


def _parts(given: OptimizerSpec) -> tuple[str, dict[str, Any]]:
    """Class path and arguments."""
    if isinstance(given, str):
        return given, dict(RECOMMENDED.get(given, {}))
    if "class_path" not in given or set(given) - {"class_path", "init_args"}:
        raise UserError(f"optimizer is {dict(given)}: expected class_path and init_args")
    path, arguments = given["class_path"], given.get("init_args")
    reserved = {"lr": "learning_rate", "weight_decay": "weight_decay"}
    for name, option in reserved.items():
        if name in (arguments or {}):
            raise UserError(f"optimizer.init_args has {name}: set {option} beside optimizer instead")
    return path, dict(RECOMMENDED.get(path, {}) if arguments is None else arguments)
