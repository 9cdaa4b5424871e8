"""One log for all phases of a run: training, search and fine-tuning are told apart by a prefix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import Logger

from gnnrl_lightning.report.metrics import MetricsFile


class PhaseLogger(Logger):
    """Hands metrics on to another logger with `<phase>/` before their names.

    Args:
        logger: The logger of the run.
        phase: Name of the phase.
    """

    def __init__(self, logger: Logger, phase: str) -> None:
        super().__init__()
        self.logger, self.phase = logger, phase

    @property
    def name(self) -> str | None:
        """Name of the run."""
        return self.logger.name

    @property
    def version(self) -> int | str | None:
        """Version of the run."""
        return self.logger.version

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record the metrics of one step."""
        self.logger.log_metrics({f"{self.phase}/{name}": value for name, value in metrics.items()}, step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Hyperparameters of a phase are part of the run's configuration, which is recorded once."""

    def go_on(self, epochs: int) -> None:
        """Forget what the phase logged after this many epochs, where the run's logger is a file of ours."""
        if isinstance(self.logger, MetricsFile):
            self.logger.go_on(epochs, f"{self.phase}/")

    def save(self) -> None:
        """Write what has been recorded; the run's logger is finalised by the run, not by a phase."""
        self.logger.save()
