"""One step of a training on a copy of the network, before anything is measured, searched or trained."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from gnnrl_lightning.data import ExampleData
from gnnrl_lightning.errors import UserError, finite_number, with_place
from gnnrl_lightning.module_state import state_tensors
from gnnrl_lightning.networks import eval_mode, not_finite
from gnnrl_lightning.networks.channels_last import store_channels_last
from gnnrl_lightning.networks.copies import independent_copy
from gnnrl_lightning.objective import Objective
from gnnrl_lightning.training.distillation import Teacher
from gnnrl_lightning.training.mixup import check_mixable
from gnnrl_lightning.training.module import SupervisedModule
from gnnrl_lightning.training.optimizers import make_optimizer
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.trees import Tree, call, channels_last, tensors

EXAMPLES, STEPS = 2, 1000
"""Examples of the step that is tried, and the most steps at which a schedule is."""


def check_training(
    network: nn.Module,
    options: TrainingOptions,
    objective: Objective,
    data: ExampleData,
    teacher: Teacher | None = None,
) -> None:
    """Refuse options that do not fit a network and its data, before the training begins.

    Args:
        network: The network, or one with the same kinds of parameters; not changed.
        options: Training options.
        objective: Computes the loss.
        data: The data module, set up.
        teacher: What to distil from.

    Raises:
        UserError: Distillation without a teacher, a distillation loss that fails or is not a number, no parameters to
            train, mixup of inputs that are not floating-point, or a step or the schedule fails, see `try_step` and
            `try_schedule`.
    """
    if options.epochs == 0:
        return
    batches = math.ceil(len(data.train) / data.batch_size)
    try_schedule(options, options.epochs * batches)
    module = SupervisedModule(network, options, objective, teacher)
    module.configure_optimizers()
    some = data.some(EXAMPLES)
    inputs = data.normalize(some.inputs)
    if options.weight_of(teacher) > 0:
        with eval_mode(network), torch.no_grad():
            finite_number(lambda: module.distil(inputs)[1], f"distillation {options.distillation!r}")
    if options.mixup > 0:
        check_mixable(inputs)
    try_step(network, options, objective, inputs, some.targets)
    if len(data.train) // batches < EXAMPLES:  # the sizes of batches differ by at most one
        _try_one(network, options, objective, data)


def _try_one(network: nn.Module, options: TrainingOptions, objective: Objective, data: ExampleData) -> None:
    """Refuse batches of one example if a norm of the network needs more."""
    one = data.some(1)
    try:
        try_step(network, options, objective, data.normalize(one.inputs), one.targets)
    except UserError as error:
        raise UserError(
            f"with one example in a batch, {error}; a batch_size of {data.batch_size} for {len(data.train)} training "
            "examples makes such a batch: set another one for the data"
        ) from error


def try_step(network: nn.Module, options: TrainingOptions, objective: Objective, inputs: Tree, targets: Tree) -> None:
    """Take one step on a copy of a network.

    Args:
        network: The network.
        options: Training options.
        objective: Computes the loss.
        inputs: Normalised inputs of a few examples.
        targets: Their targets.

    Raises:
        UserError: The network fails in training mode, the loss fails or is no scalar that depends on the parameters, or
            the optimiser fails, does not call its closure, or makes parameters NaN.
    """
    name = f"objective {type(objective).__name__}"
    with isolate_rng(), torch.enable_grad():
        copied = independent_copy(network).train()
        last = options.channels_last is True
        if last:
            store_channels_last(copied)
        optimizer = make_optimizer(
            options.optimizer,
            copied.parameters(),
            options.learning_rate,
            options.weight_decay,
            options.decay_norms_and_biases,
        )
        losses: list[Tensor] = []

        def closure() -> Tensor:
            optimizer.zero_grad()
            outputs = _called(
                "the network in training mode",
                "outputs as in evaluation mode",
                call,
                copied,
                channels_last(inputs, last),
            )
            try:
                loss = _called(f"{name}: loss", "a scalar tensor", objective.loss, outputs, targets)
            except UserError as error:
                raise UserError(f"in training mode, {error}") from error
            if not isinstance(loss, Tensor) or loss.shape != ():
                what = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
                raise UserError(f"{name}: loss is {what}: expected the mean over the batch, a tensor of shape ()")
            if not loss.requires_grad:
                raise UserError(
                    f"{name}: loss depends on no parameter of the network: expected neither torch.no_grad() nor "
                    "detach() in the network or the loss"
                )
            if not bool(loss.isfinite()) and all(bool(each.isfinite().all()) for each in tensors(outputs)):
                raise UserError(f"{name}: loss is {loss.item()}, of finite outputs: expected a finite number")
            _called(f"{name}: backward of the loss", "gradients of the parameters", loss.backward)
            losses.append(loss)
            return loss

        chosen = f"optimizer {options.optimizer!r}"
        _called(f"{chosen}: step", "step(closure), which calls the closure", optimizer.step, closure=closure)
        if not losses:
            raise UserError(f"{chosen}: step does not call its closure: expected that, for it computes the gradients")
        if bool(losses[0].isfinite()) and (found := not_finite(state_tensors(copied))) is not None:
            raise UserError(f"{chosen}: after one step, the network has {found}; change its arguments")


def try_schedule(options: TrainingOptions, steps: int) -> None:
    """Call the schedule of a training at up to a thousand of its steps.

    Args:
        options: Training options.
        steps: Steps of the training.

    Raises:
        UserError: It fails, or does not return a number from 0 to 1.
    """
    for step in [*range(0, steps, max(1, steps // STEPS)), steps]:
        options.share(step, steps)


def _called(what: str, expected: str, function: Any, *arguments: Any, **named: Any) -> Any:
    """Call what is of the user's own."""
    try:
        return function(*arguments, **named)
    except UserError:
        raise
    except Exception as error:  # the user's own may raise anything
        raise UserError(f"{what} fails: {with_place(error)}; expected {expected}") from error
