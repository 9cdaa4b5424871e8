"""The optimisers by name, and the parameter groups that they get."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.registry import Registry, name_and_arguments

OptimizerSpec = str | dict[str, Any]
"""A name in `OPTIMIZERS` or an import path; or a mapping of `class_path`, which is either, and `init_args`."""

MakeOptimizer = Callable[..., Any]
"""`(parameters or parameter groups, lr=, weight_decay=, arguments by name) -> optimiser`: a class, or a function."""


def _maker(given: Any) -> MakeOptimizer:
    if not callable(given):
        raise TypeError(f"expected a torch.optim.Optimizer, or a function that makes one, not a {type(given).__name__}")
    return given


OPTIMIZERS: Registry[MakeOptimizer] = Registry("optimizer", _maker)
"""Name -> what makes the optimiser."""

OPTIMIZERS.register("sgd", partial(torch.optim.SGD, momentum=0.9, nesterov=True))
OPTIMIZERS.register("adamw", torch.optim.AdamW)


def make_optimizer(
    given: OptimizerSpec,
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    weight_decay: float,
    decay_all: bool = True,
) -> Optimizer:
    """Create an optimiser.

    Args:
        given: Which one; its `init_args` come before the arguments of the row.
        parameters: The parameters, of which those that require gradients are trained.
        learning_rate: Largest learning rate.
        weight_decay: Weight decay.
        decay_all: Whether all parameters decay; else only those with at least two dimensions, which the scales of
            norms and biases do not have.

    Raises:
        UserError: It is unknown, is not an optimiser, takes no learning rate or weight decay, or refuses its arguments.
    """
    name, arguments = name_and_arguments(given, "optimizer")
    make = OPTIMIZERS.find(name)
    shared = {"lr": learning_rate, "weight_decay": weight_decay}
    for argument, option in {"lr": "learning_rate", "weight_decay": "weight_decay"}.items():
        if argument in arguments:
            raise UserError(f"optimizer.init_args has {argument}: set {option} beside optimizer instead")
        if not _takes(make, argument):
            raise UserError(f"optimizer {name!r} takes no {argument}: choose another one, for example adamw")
    trained: list[Any] = [parameter for parameter in parameters if parameter.requires_grad]
    if not decay_all:
        trained = _without_decay_of_vectors(trained, weight_decay)
    try:
        optimizer = make(trained, **shared, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"optimizer {name!r} refuses its arguments {arguments}: {one_line(error)}; change them"
        ) from error
    if not isinstance(optimizer, Optimizer):
        raise UserError(f"optimizer {name!r} makes a {type(optimizer).__name__}: expected a torch.optim.Optimizer")
    return optimizer


def _takes(make: MakeOptimizer, argument: str) -> bool:
    """Whether a function has an argument, or takes any; of a few classes built into Python it is not known."""
    try:
        found = inspect.signature(make).parameters
    except ValueError:
        return False
    return argument in found or any(each.kind is each.VAR_KEYWORD for each in found.values())


def _without_decay_of_vectors(trained: list[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Return two parameter groups, of which that of vectors and scalars does not decay; empty ones are left out."""
    several = [parameter for parameter in trained if parameter.dim() > 1]
    single = [parameter for parameter in trained if parameter.dim() <= 1]
    parts = ((several, weight_decay), (single, 0.0))
    return [{"params": part, "weight_decay": decay} for part, decay in parts if part]


def check_optimizer(given: OptimizerSpec) -> None:
    """Refuse an optimiser that `make_optimizer` would refuse for a single weight matrix.

    Raises:
        UserError: As `make_optimizer`.
    """
    make_optimizer(given, [nn.Parameter(torch.zeros(1, 1))], 0.1, 0.0)
