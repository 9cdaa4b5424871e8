"""What other loggers get besides metrics: axes, tables, figures and the pruned network, for W&B and TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from gnnrl_lightning.report.pages.records import NETWORKS
from gnnrl_lightning.report.phases import AttachedLogger, split_stage

STEPS = {
    "rollout": "search/evaluations",
    "search": "search/evaluations",
    "surrogate": "search/evaluations",
    "losses": "epoch",
    "proxy": "epoch",
    "charts": "epoch",
}
"""First part of a metric's name -> the metric on its horizontal axis; each training phase counts its own epochs, and
each stage of a run its own steps."""


def step_of(name: str) -> str | None:
    """Return the metric on the horizontal axis of a metric; None: the logger's default."""
    stage, own = split_stage(name)
    part = own.partition("/")[0]
    step = f"{part}/epoch" if part in NETWORKS else STEPS.get(part)
    return None if step in (None, own) else f"{stage}{step}"


class WandbAxes(AttachedLogger):
    """Tells W&B the horizontal axis of every metric. It stands before the W&B logger, and logs nothing itself.

    Each name is defined when it is first logged: W&B does not say which of several matching patterns holds, and
    Lightning defines the pattern `*`.

    Args:
        logger: The W&B logger.
    """

    def __init__(self, logger: WandbLogger) -> None:
        super().__init__(logger)
        self.experiment, self._defined = logger.experiment, set[str]()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Define the axes of the names that are new."""
        for name in metrics.keys() - self._defined:
            axis = step_of(name)
            if axis is not None:
                self.experiment.define_metric(name, step_metric=axis)
            self._defined.add(name)


@dataclass(frozen=True)
class Evidence:
    """What a finished run shows.

    Args:
        tables: Name -> rows, all with the same keys.
        figures: PNG files.
        artifact: Folder of the pruned network; None: the run delivers none.
    """

    tables: Mapping[str, Sequence[Mapping[str, Any]]]
    figures: Sequence[Path]
    artifact: Path | None = None


def publish(loggers: Sequence[Logger], evidence: Evidence) -> None:
    """Pass the evidence to the loggers that can show it.

    Args:
        loggers: The loggers of a run.
        evidence: Tables, figures and the artifact.
    """
    for logger in loggers:
        for kind, show in PUBLISHERS.items():
            if isinstance(logger, kind):
                show(logger, evidence)


def _to_wandb(logger: Any, evidence: Evidence) -> None:
    import wandb

    shown: dict[str, Any] = {}
    for name, rows in evidence.tables.items():
        columns: list[Any] = list(rows[0])
        shown[f"report/{name}"] = wandb.Table(columns, [[row[column] for column in columns] for row in rows])
    shown |= {f"report/{path.stem}": wandb.Image(str(path)) for path in evidence.figures}
    logger.experiment.log(shown)
    if evidence.artifact is not None:
        made = wandb.Artifact(f"pruned-{logger.experiment.id}", type="model")
        made.add_dir(str(evidence.artifact))
        logger.experiment.log_artifact(made)


def _to_tensorboard(logger: Any, evidence: Evidence) -> None:
    from matplotlib.image import imread

    for name, rows in evidence.tables.items():
        lines = ["|".join(rows[0]), "|".join("-" for _ in rows[0])]
        lines += ["|".join(map(str, row.values())) for row in rows]
        logger.experiment.add_text(f"report/{name}", "\n".join(f"|{line}|" for line in lines))
    for path in evidence.figures:
        logger.experiment.add_image(f"report/{path.stem}", imread(path)[..., :3], dataformats="HWC")


PUBLISHERS: Mapping[type[Logger], Callable[[Any, Evidence], None]] = {
    WandbLogger: _to_wandb,
    TensorBoardLogger: _to_tensorboard,
}
"""Class of a logger -> shows the evidence there."""
