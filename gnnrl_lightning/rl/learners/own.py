"""What a learner of the user's own class may lack, each refused in one line that names the class."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from gnnrl_lightning.errors import UserError


def check_made(learner: LightningModule) -> None:
    """Refuse a learner of a class that does not call the constructor of its base class.

    Raises:
        UserError: It does not.
    """
    if "_make_policy" not in vars(learner):
        name = type(learner).__name__
        raise UserError(
            f"{name} has no make_policy: call super().__init__(**kwargs) in its __init__, which takes **kwargs"
        )


def check_batch(learner: LightningModule, batch: Any, kind: type) -> None:
    """Refuse a batch of another kind than the training step reads.

    Args:
        learner: The learner.
        batch: What the loader of the training has given.
        kind: The kind that is read.

    Raises:
        UserError: It is of another kind.
    """
    if not isinstance(batch, kind):
        given = f"{type(learner).__name__}.train_dataloader gives a {type(batch).__name__}"
        raise UserError(
            f"{given}: expected {kind.__name__}, as the loader of its base class gives; or override training_step "
            "as well"
        )


def check_trained(learner: LightningModule, trainer: Trainer) -> None:
    """Refuse a learner whose loader has given no batch, so that the agent has asked for no candidate.

    Args:
        learner: The learner.
        trainer: The trainer, after its `fit`.

    Raises:
        UserError: There was no batch, although nothing has stopped the trainer.
    """
    if trainer.fit_loop.epoch_loop.batch_progress.total.ready == 0 and not trainer.should_stop:
        name = type(learner).__name__
        raise UserError(f"{name}.train_dataloader gives no batches: expected those of the loader of its base class")
