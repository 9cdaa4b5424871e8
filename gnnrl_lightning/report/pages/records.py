"""What the files of a run say, in plain types, for its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnnrl_lightning.objective import Figure
from gnnrl_lightning.objective.protocol import primary_figure

NETWORKS = {"dense": "dense", "uniform": "uniform", "pruned": "ours"}
"""Networks of a result -> their names for readers."""

COMPRESS = "compress"
"""Maker of the runs of `gnnrl_lightning.compress`, whose settings are no configuration of the command line."""


@dataclass(frozen=True)
class Losses:
    """What narrowing each group alone does.

    Attributes:
        ratios: Keep ratios `K`, ascending.
        measured: Loss of each group at each ratio, `G` rows of `K`.
    """

    ratios: Sequence[float]
    measured: Sequence[Sequence[float]]


@dataclass(frozen=True)
class RunRecord:
    """The files of one run.

    Attributes:
        folder: The folder of the run.
        subcommand: The subcommand that made it, or `COMPRESS`.
        config: The resolved configuration.
        configuration: The same as text.
        objective: The objective's record, see `gnnrl_lightning.objective.protocol.record`.
        result: Contents of result.json; None: the run has not finished, or writes none.
        candidates: Contents of the journal, in the order of evaluation.
        metrics: Rows of metrics.csv, each with the values that it has.
        losses: The sensitivity; None: the run has measured none.
    """

    folder: Path
    subcommand: str
    config: Mapping[str, Any]
    configuration: str
    objective: Mapping[str, Any]
    result: Mapping[str, Any] | None = None
    candidates: Sequence[Mapping[str, Any]] = ()
    metrics: Sequence[Mapping[str, float]] = ()
    losses: Losses | None = None

    @property
    def primary(self) -> str:
        """Name of the objective's primary figure."""
        return primary_figure({"objective": self.objective})[0]

    @property
    def figure(self) -> Figure:
        """The objective's primary figure."""
        return primary_figure({"objective": self.objective})[1]

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.folder.resolve().name

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.config["seed" if self.subcommand == COMPRESS else "seed_everything"]

    @property
    def reward(self) -> str | None:
        """Name of the reward; None: the primary figure."""
        sections = self.config["options"] if self.subcommand == COMPRESS else self.config
        return sections["episode"]["reward"]

    @property
    def network(self) -> str:
        """Name of the network."""
        return self.result["network"] if self.result else str(self.config["network"]["class_path"]).rpartition(".")[2]

    def series(self, name: str, at: str) -> tuple[list[float], list[float]]:
        """Return the values of a metric and where they were logged, in order.

        Args:
            name: Name of the metric.
            at: Name of the metric logged beside it that counts the steps.
        """
        rows = [row for row in self.metrics if name in row and at in row]
        return [row[at] for row in rows], [row[name] for row in rows]

    def logged(self) -> list[str]:
        """Return the names of all metrics with a value."""
        return sorted({name for row in self.metrics for name in row})
