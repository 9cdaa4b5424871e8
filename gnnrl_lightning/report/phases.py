"""One log for all phases of a run: a prefix distinguishes training, search and fine-tuning."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import Logger

from gnnrl_lightning.report.metrics import MetricsFile

STAGE = re.compile(r"stage-\d+")
"""First part of the names of what a stage before the last one logs: `stage-1/pruned/val/top1`."""


def split_stage(name: str) -> tuple[str, str]:
    """Split the name of a metric into the stage with its slash, empty for the last or only one, and the rest."""
    first, slash, rest = name.partition("/")
    return (f"{first}/", rest) if slash and STAGE.fullmatch(first) else ("", name)


class AttachedLogger(Logger):
    """A logger beside or before another one, with its name and version; it ignores hyperparameters, which that one has.

    Args:
        logger: The other logger.
    """

    def __init__(self, logger: Logger) -> None:
        super().__init__()
        self.logger = logger

    @property
    def name(self) -> str | None:
        """Name of the run."""
        return self.logger.name

    @property
    def version(self) -> int | str | None:
        """Version of the run."""
        return self.logger.version

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Ignore hyperparameters: the other logger has recorded the run's configuration."""


class PhaseLogger(AttachedLogger):
    """A logger that passes metrics to another logger with the prefix `<phase>/`.

    Args:
        logger: The logger of the run.
        phase: Name of the phase.
    """

    def __init__(self, logger: Logger, phase: str) -> None:
        super().__init__(logger)
        self.phase = phase

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record the metrics of one step."""
        self.logger.log_metrics({f"{self.phase}/{name}": value for name, value in metrics.items()}, step)

    def resume(self, epochs: int) -> None:
        """Delete the rows that the phase logged after this many epochs, if the run's logger is a `MetricsFile`."""
        if isinstance(self.logger, MetricsFile):
            self.logger.resume(epochs, f"{self.phase}/")

    def save(self) -> None:
        """Write the recorded metrics. The run finalises its own logger, not the phase."""
        self.logger.save()
