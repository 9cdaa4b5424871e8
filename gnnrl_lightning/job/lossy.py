"""The files of an artifact in result.json, and what the approximations of lossy formats have cost.

An approximation is scored as it was loaded from its file, on the holdout and once on the test examples, beside the
network itself. If it loses more on the holdout than `delivery.largest_drop`, a warning says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from gnnrl_lightning.artifacts.formats import find_formats
from gnnrl_lightning.artifacts.recipe import files_of, read_recipe
from gnnrl_lightning.exporting.program import ANY
from gnnrl_lightning.job.finetuning import Guess, keyed
from gnnrl_lightning.job.job import Job
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.report.files import DROP
from gnnrl_lightning.trees import Tree, count, join, split


def format_figures(
    job: Job, folder: Path, loaded: Mapping[str, Callable[..., Tree]], network: nn.Module
) -> dict[str, dict[str, Any]]:
    """Return the figures of each format, as in result.json.

    Args:
        job: The job.
        folder: Folder of the artifact.
        loaded: Name of each format -> what was loaded from its file, on the CPU.
        network: The delivered network.

    Returns:
        Name of each format -> `files`, the size in bytes of each; for lossy formats also the objective's figures on the
        holdout (`*_search`) and on the test examples (`*_test`), and `drop`, see `drop`.
    """
    notes = read_recipe(folder)["formats"]
    found: dict[str, dict[str, Any]] = {
        name: {"files": {file: (folder / file).stat().st_size for file in files_of(notes[name])}} for name in loaded
    }
    task, lossy = job.task, approximations(job.task, folder, loaded)
    if not lossy:
        return found
    exact, guess = (task.figures(each, task.data.holdout) for each in (network, Guess(network)))
    with job.runtime.shown("lossy formats", len(lossy)) as advance:
        for name, approximation in lossy.items():
            scores = task.figures(approximation, task.data.holdout)
            lost = drop(*(task.primary.merit(each[task.goal.primary]) for each in (scores, exact, guess)))
            found[name] |= {
                **keyed("search", scores),
                **keyed("test", task.figures(approximation, task.data.test)),
                DROP: lost,
            }
            _warn(job, name, lost, scores, exact)
            advance()
    return found


def approximations(task: Task, folder: Path, loaded: Mapping[str, Callable[..., Tree]]) -> dict[str, nn.Module]:
    """Return the name of each lossy format -> what was loaded from its file, as a network.

    Args:
        task: The task.
        folder: Folder of the artifact.
        loaded: Name of each format -> what was loaded from its file.
    """
    notes = read_recipe(folder)["formats"]
    fixed = {name: notes[name].get("batch", ANY) != ANY for name, row in find_formats([*loaded]).items() if row.lossy}
    return {name: Loaded(loaded[name], task.example() if alone else None) for name, alone in fixed.items()}


def drop(approximation: float, network: float, guess: float) -> float:
    """Return what an approximation loses, as a share of the network's lead over guessing.

    Args:
        approximation: Merit of the approximation, see `gnnrl_lightning.objective.Figure.merit`.
        network: That of the network.
        guess: That of a network whose outputs are zero.

    Returns:
        Negative if the approximation is better; 1 if it is worse than a network that is no better than a guess.
    """
    lost, gained = network - approximation, network - guess
    return lost / gained if gained > 0 else float(lost > 0)


def _warn(job: Job, name: str, lost: float, scores: Mapping[str, float], exact: Mapping[str, float]) -> None:
    figure, most = job.task.primary, job.options.delivery.largest_drop
    has, had = (figure.with_unit(each[job.task.goal.primary]) for each in (scores, exact))
    if lost > most:
        warnings.warn(
            f"{figure.label} on the holdout of the format {name} is {has}, of the network {had}: a drop of {lost:.1%} "
            f"of the network's lead over guessing, and delivery.largest_drop is {most:g}; deliver another "
            "format, or set more delivery.calibration_examples",
            stacklevel=2,
        )


class Loaded(nn.Module):
    """What was loaded from a file, as a network.

    Args:
        loaded: Maps a batch of inputs to outputs.
        batch: A batch of the only size that it accepts; None: it accepts any.
    """

    def __init__(self, loaded: Callable[..., Tree], batch: Tree | None = None) -> None:
        super().__init__()
        # No submodule: exported programs refuse to change their mode.
        self.loaded, self.size = partial(loaded), None if batch is None else count(batch)

    def forward(self, *inputs: Tree, **named: Tree) -> Tree:
        """Return the outputs for a batch of inputs."""
        if self.size is None:
            return self.loaded(*inputs, **named)
        return join([self.loaded(*some, **others) for some, others in split((inputs, named), self.size)])
