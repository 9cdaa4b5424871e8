"""What chooses or changes the winner after a search: a table of steps, taken in this order wherever a search ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.job.fastest import with_fastest
from gnnrl_lightning.job.finals import play
from gnnrl_lightning.job.latency_check import with_latency_checked
from gnnrl_lightning.job.searching import Searched
from gnnrl_lightning.runs.folder import RunFolder


@dataclass(frozen=True)
class ChoiceFiles:
    """Where the steps keep what they have found, so that a resumed run does not repeat it.

    Args:
        finals: Journal of the finalists.
        fastest: The candidates that are alike, with their times; None: they are measured again.
        latency_check: The candidates that were measured; None: they are measured again.
    """

    finals: Path
    fastest: Path | None
    latency_check: Path | None

    @classmethod
    def of(cls, folder: RunFolder) -> ChoiceFiles:
        """The files of a run."""
        return cls(folder.finals, folder.fastest, folder.latency_check)


Step = Callable[[Searched, ChoiceFiles], Searched]
"""`(finished search, files) -> the same search`, with another winner or the same one."""


def with_finals(searched: Searched, files: ChoiceFiles) -> Searched:
    """Train the finalists if the options want any, and choose the best of them; those in the journal are not repeated.

    Args:
        searched: The finished search.
        files: Its journal is read and continued.
    """
    trained = searched.trained
    if trained.job.options.finals.candidates == 0:
        return searched
    journal = trained.journal(files.finals)
    played = play(trained, trained.job.limits, searched.history, searched.best, journal)
    return replace(searched, best=played.winner, finals=played)


STEPS: Mapping[str, Step] = {
    "finals": with_finals,
    "fastest": lambda searched, files: with_fastest(searched, files.fastest),
    "latency": lambda searched, files: with_latency_checked(searched, files.latency_check),
}
"""Name -> step, in the order in which they are taken; each does nothing if the options do not ask for it."""


def choose(searched: Searched, files: ChoiceFiles) -> Searched:
    """Return the search with the winner to deliver.

    Args:
        searched: The finished search, whose winner is the best evaluation within the budget.
        files: Where the steps keep what they find.
    """
    for step in STEPS.values():
        searched = step(searched, files)
    front = {macs: recosted(searched, item) for macs, item in searched.front.items()}
    return replace(searched, best=recosted(searched, searched.best), front=front)


def recosted(searched: Searched, item: Evaluation) -> Evaluation:
    """Return an evaluation with costs by the model of the latency as it is now, which a step may have corrected."""
    return replace(item, costs=searched.trained.job.limits.costs(torch.tensor(item.widths)))
