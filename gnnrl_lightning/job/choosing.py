"""What chooses or changes the winner after a search: a table of steps, taken in this order wherever a search ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.job.fastest import with_fastest
from gnnrl_lightning.job.finals import with_finals
from gnnrl_lightning.job.latency_check import with_latency_checked
from gnnrl_lightning.job.searched import Searched
from gnnrl_lightning.runs.folder import RunFolder

Step = Callable[[Searched, Path | None], Searched]
"""`(finished search, file) -> the same search`, with another winner or the same one.

The file keeps what the step has found, so that a resumed run does not repeat it; None: nothing is kept.
"""

STEPS: Mapping[str, Step] = {"finals": with_finals, "fastest": with_fastest, "latency": with_latency_checked}
"""Name -> step, in the order in which they are taken; each does nothing if the options do not ask for it."""


def files_of(folder: RunFolder) -> Mapping[str, Path]:
    """Name of each step -> its file in the folder of a run."""
    return {"finals": folder.finals, "fastest": folder.fastest, "latency": folder.latency_check}


def choose(searched: Searched, files: Mapping[str, Path]) -> Searched:
    """Return the search with the winner to deliver.

    Args:
        searched: The finished search, whose winner is the best evaluation within the budget.
        files: Name of a step -> its file; steps without one keep nothing.
    """
    for name, step in STEPS.items():
        searched = step(searched, files.get(name))
    front = {macs: recosted(searched, item) for macs, item in searched.front.items()}
    return replace(searched, best=recosted(searched, searched.best), front=front)


def recosted(searched: Searched, item: Evaluation) -> Evaluation:
    """Return an evaluation with costs by the model of the latency as it is now, which a step may have corrected."""
    return replace(item, costs=searched.trained.job.limits.costs(torch.tensor(item.widths)))
