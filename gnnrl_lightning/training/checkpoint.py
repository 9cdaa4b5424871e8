"""The one checkpoint that a phase of a run goes on from."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from gnnrl_lightning.processes import from_first
from gnnrl_lightning.report.metrics import MetricsFile
from gnnrl_lightning.report.phases import PhaseLogger


class LatestCheckpoint(Checkpoint):
    """Keeps the checkpoint of the last complete epoch, and metrics.csv in step with it.

    It is made at the end of an epoch and takes the place of the one before once the epoch's metrics have been logged:
    whoever is killed in between repeats the epoch. When the training goes on from it, the metrics of later epochs are
    forgotten.

    Args:
        path: The file; None: nothing is kept.
        notes: What a checkpoint holds beside what Lightning puts into it, plain values by name.
    """

    def __init__(self, path: Path | None = None, notes: Callable[[], dict[str, Any]] = dict) -> None:
        self.path, self.notes = path, notes
        self._made: Path | None = None

    @property
    def found(self) -> Path | None:
        """The checkpoint to go on from; None: the training begins."""
        return self.path if from_first(self.path is not None and self.path.is_file()) else None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the notes."""
        checkpoint |= self.notes()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Delete the metrics that were logged after the checkpoint."""
        for logger in trainer.loggers:
            if isinstance(logger, (MetricsFile, PhaseLogger)):
                logger.resume(trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the checkpoint of this epoch."""
        if self.path is not None:
            self._made = self.path.with_name(f"{self.path.name}.partial")
            trainer.save_checkpoint(self._made)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep it: the epoch before has been logged."""
        self._keep(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the last one."""
        self._keep(trainer)

    def _keep(self, trainer: Trainer) -> None:
        if self._made is not None and self.path is not None and trainer.is_global_zero:
            os.replace(self._made, self.path)
        self._made = None
