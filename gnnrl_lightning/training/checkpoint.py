"""The checkpoint from which a phase of a run resumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from gnnrl_lightning.files import keep
from gnnrl_lightning.processes import from_first
from gnnrl_lightning.report.metrics import MetricsFile
from gnnrl_lightning.report.phases import PhaseLogger


class LatestCheckpoint(Checkpoint):
    """Keeps the checkpoint of the last complete epoch, and metrics.csv in step with it.

    It is created at the end of an epoch and replaces the previous one after the epoch's metrics have been logged: a run
    that is interrupted in between repeats the epoch. When training resumes, the metrics of later epochs are deleted.

    Args:
        path: The file; None: nothing is kept.
        notes: Returns values to save in addition to Lightning's, plain values by name.
    """

    def __init__(self, path: Path | None = None, notes: Callable[[], dict[str, Any]] = dict) -> None:
        self.path, self.notes = path, notes
        self._made: Path | None = None

    @property
    def found(self) -> Path | None:
        """The checkpoint to resume from; None: training starts from the beginning."""
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
        """Create the checkpoint of this epoch."""
        if self.path is not None:
            self._made = self.path.with_name(f"{self.path.name}.partial")
            trainer.save_checkpoint(self._made)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the checkpoint, as the metrics of its epoch have been logged."""
        self._keep(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the last one."""
        self._keep(trainer)

    def _keep(self, trainer: Trainer) -> None:
        if self._made is not None and self.path is not None and trainer.is_global_zero:
            keep(self._made, self.path)
        self._made = None
