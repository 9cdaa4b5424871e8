"""Global threshold: remove the least important channels of the whole network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.importance import IMPORTANCES, Calibration, importance_scores
from gnnrl_lightning.search.problem import SearchProblem


def widths_above_threshold(limits: BoundBudget, scores: list[Tensor]) -> Tensor:
    """Find the lowest threshold on normalised scores that meets the budget, and project its widths onto the budget.

    A channel's score is the sum over its index sets (the k-th best channels of all sets are removed together), divided
    by the mean score of its group: without that, the groups of large layers would stay whole and others vanish. Every
    group keeps at least its lowest allowed width. The scores of a masked weight's parts are evenly spaced.

    Args:
        limits: The budget bound to the graph.
        scores: Importance of each channel, `(sets, width)` for each group.

    Returns:
        int64 `(G,)`.

    Source: The normalisation follows DepGraph, https://arxiv.org/abs/2301.12900, section 3.3.
    """
    ordered = [
        score.double().sort(1, descending=True).values.sum(0) if len(score) else _ramp(score.shape[1])
        for score in scores
    ]
    ordered = [score / score.mean().clamp(min=torch.finfo(torch.float64).tiny) for score in ordered]
    thresholds = torch.cat(ordered).unique()  # ascending; a lower threshold keeps at least as many channels
    low, high = 0, len(thresholds)  # the solution is in [low, high]; at `high` every group has its lowest width

    def kept(index: int) -> Tensor:
        threshold = thresholds[index] if index < len(thresholds) else torch.inf
        return limits.allowed.down(torch.tensor([int((score >= threshold).sum()) for score in ordered]))

    while low < high:
        middle = (low + high) // 2
        if limits.met(kept(middle)):
            high = middle
        else:
            low = middle + 1
    return limits.project(kept(high))


def _ramp(parts: int) -> Tensor:
    return torch.linspace(2, 0, parts, dtype=torch.float64)


@dataclass(frozen=True)
class GlobalThreshold:
    """A single candidate from a global threshold on importance.

    Args:
        importance: Name of `gnnrl_lightning.importance.IMPORTANCES`, or import path.
    """

    importance: str

    def __call__(self, problem: SearchProblem) -> Tensor:
        """Widths `(G,)`."""
        inputs = [problem.calibration(name) for name in IMPORTANCES.find(self.importance).passes]
        calibration = Calibration(inputs[0], None, problem.objective) if inputs else None
        scores = importance_scores(problem.graph, problem.network, self.importance, calibration)
        return widths_above_threshold(problem.limits, scores)
