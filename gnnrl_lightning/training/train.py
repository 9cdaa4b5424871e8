"""Training of dense and pruned networks, and the figures of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from gnnrl_lightning.data import BatchLoader, ExampleData, Examples
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.module_state import state_tensors
from gnnrl_lightning.networks import eval_mode
from gnnrl_lightning.networks.channels_last import store_channels_last
from gnnrl_lightning.objective import Objective
from gnnrl_lightning.objective.protocol import added_up, measure
from gnnrl_lightning.processes import share_weights
from gnnrl_lightning.quiet import without_others_warnings
from gnnrl_lightning.training.averaging import MovingAverage
from gnnrl_lightning.training.checkpoint import LatestCheckpoint
from gnnrl_lightning.training.distillation import Teacher
from gnnrl_lightning.training.module import SupervisedModule
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.trees import call, floats, to_device


def quiet_trainer(**flags: object) -> Trainer:
    """Return a Trainer without logs, checkpoints, progress bar, summary or validation.

    Args:
        **flags: Arguments of `Trainer` that override these defaults.
    """
    defaults = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
    }
    return Trainer(**{**defaults, **flags})  # pyright: ignore[reportArgumentType]


def train(
    network: nn.Module,
    data: ExampleData,
    options: TrainingOptions,
    objective: Objective,
    *,
    trainer: Callable[..., Trainer] = quiet_trainer,
    seed: int = 0,
    teacher: Teacher | None = None,
    checkpoint: Path | None = None,
) -> list[dict[str, float]]:
    """Train a network in place, and validate it on the holdout after each epoch; with 0 epochs, nothing is trained.

    Afterwards the network is in evaluation mode, on its original device, and the same parameters require gradients as
    before. All randomness derives from `seed` (the global generators are restored), so the same seed gives the same
    weights on a CPU. With several processes, all end with the weights of the first one.

    Args:
        network: Maps inputs to outputs, see `gnnrl_lightning.trees.call`.
        data: The data module, set up; for this run its training order and augmentation derive from `seed`.
        options: Training options.
        objective: Computes loss and figures.
        trainer: Creates the Trainer; called with `max_epochs`, `gradient_clip_val`, `limit_val_batches` and
            `precision`.
        seed: Seed of the order, of the augmentation, of mixup and of dropout.
        teacher: What to distil from, needed if `options.distillation_weight` is a number above 0.
        checkpoint: File of the checkpoint after each epoch; if it exists, training resumes from it and ends with the
            same weights. None: no checkpoints.

    Returns:
        The objective's figures of the holdout after each epoch, those of a resumed training included.

    Raises:
        UserError: There are epochs, and distillation lacks a teacher, the network has no parameters to train, or the
            precision is auto; or the trainer does not validate after each epoch.
    """
    if options.epochs == 0:
        network.eval()
        return []
    module = SupervisedModule(network, options, objective, teacher, seed)
    latest = LatestCheckpoint(checkpoint)
    networks = [network] if teacher is None else [network, teacher.network]
    devices = [(each, _device(each)) for each in networks]
    data_seed, data.seed = data.seed, seed
    try:
        stored = channels_last_weights(networks, options.channels_last is True)
        with isolate_rng(), without_others_warnings(), stored:
            network.train()
            flags = {"max_epochs": options.epochs, "gradient_clip_val": options.gradient_clip or None}
            runner = trainer(**flags, limit_val_batches=None, precision=options.lightning_precision)
            _check_validated(runner)
            average = MovingAverage(network, options.ema_decay) if options.ema_decay > 0 else None
            callbacks = [latest] if average is None else [average, latest]
            runner.callbacks.extend(callbacks)  # pyright: ignore[reportAttributeAccessIssue]
            runner.fit(module, datamodule=data, ckpt_path=latest.found, weights_only=True)
            if average is not None:
                average.exchange()
            share_weights(network)
    finally:
        data.seed = data_seed
        network.eval()
        for each, device in devices:
            each.to(device)
    return module.holdout


def _check_validated(runner: Trainer) -> None:
    """Refuse a trainer that does not validate once after each epoch, for there would be no figures of some epochs."""
    for name in ("check_val_every_n_epoch", "val_check_interval"):
        given = getattr(runner, name)
        if given != 1 or (name == "val_check_interval" and isinstance(given, int)):
            raise UserError(f"the trainer has {name} {given}: expected to validate after each epoch; leave it out")


@contextmanager
def channels_last_weights(networks: Sequence[nn.Module], wanted: bool = True) -> Iterator[None]:
    """Store the weights of convolutions with their channels last, in place, and in the usual format afterwards.

    Args:
        networks: The networks.
        wanted: False: nothing is done.
    """
    try:
        for network in networks if wanted else ():
            store_channels_last(network)
        yield
    finally:
        for network in networks if wanted else ():
            network.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]


def figures(
    network: nn.Module,
    examples: Examples,
    data: ExampleData,
    objective: Objective,
    device: torch.device | str | None = None,
) -> dict[str, float]:
    """Compute the objective's figures of a network on some examples, by name; see `scored`."""
    return scored(network, examples, data, objective, device)[1]


def scored(
    network: nn.Module,
    examples: Examples,
    data: ExampleData,
    objective: Objective,
    device: torch.device | str | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Compute the score of each of some examples and the objective's figures.

    Args:
        network: The network; run in evaluation mode on `device`, and restored afterwards.
        examples: The N examples.
        data: Data module with normalisation and batch size.
        objective: Measures the outputs.
        device: Device to compute on; None: that of the network.

    Returns:
        Scores `(N,)` on the CPU, higher is better, see `gnnrl_lightning.objective.protocol.Measured`; figures by name.
    """
    home = _device(network)
    device = home if device is None else torch.device(device)
    batches = []
    try:
        with eval_mode(network.to(device)), torch.inference_mode():
            for batch in BatchLoader(examples, data.eval_batch_size):
                outputs = call(network, data.normalize(to_device(batch.inputs, device)))
                batches.append(objective.measure(floats(outputs), to_device(batch.targets, device)))
    finally:
        network.to(home)
    found = measure(objective, added_up([batch.sums for batch in batches]), len(examples))
    return torch.cat([batch.scores for batch in batches]).cpu(), found


def _device(network: nn.Module) -> torch.device:
    return next((tensor.device for tensor in state_tensors(network).values()), torch.device("cpu"))
