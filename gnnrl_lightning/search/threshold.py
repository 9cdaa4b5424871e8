"""A global threshold: the channels of the whole network compete, and the least important ones go."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.importance import IMPORTANCES, Calibration, importance_scores
from gnnrl_lightning.search.problem import SearchProblem


def widths_above_threshold(limits: BoundBudget, scores: list[Tensor]) -> Tensor:
    """Widths of the lowest threshold on normalised scores that meets the budget, filled up by the projection.

    A channel's score is the sum over its index sets (the k-th best of each go together), divided by the mean of its
    group: without that, the groups of large layers would stay whole and others vanish. Every group keeps its lowest
    allowed width.

    Args:
        limits: What the candidate may cost.
        scores: Importance of each channel, `(sets, width)` for each group.

    Returns:
        int64 `(G,)`.

    Source: the normalisation is that of DepGraph, https://arxiv.org/abs/2301.12900, section 3.3.
    """
    ordered = [score.double().sort(1, descending=True).values.sum(0) for score in scores]
    ordered = [score / score.mean().clamp(min=torch.finfo(torch.float64).tiny) for score in ordered]
    thresholds = torch.cat(ordered).unique()  # ascending, and a lower threshold keeps no less
    low, high = 0, len(thresholds)  # the answer is in [low, high]; at `high` every group is at its lowest width

    def kept(index: int) -> Tensor:
        threshold = thresholds[index] if index < len(thresholds) else torch.inf
        return limits.ladder.down(torch.tensor([int((score >= threshold).sum()) for score in ordered]))

    while low < high:
        middle = (low + high) // 2
        if limits.met(kept(middle)):
            high = middle
        else:
            low = middle + 1
    return limits.project(kept(high))


@dataclass(frozen=True)
class GlobalThreshold:
    """One candidate by a global threshold on importance.

    Args:
        importance: A name of `gnnrl_lightning.importance.IMPORTANCES`, or an import path.
    """

    importance: str

    def __call__(self, problem: SearchProblem) -> Tensor:
        """Widths `(G,)`."""
        inputs = [problem.calibration(name) for name in IMPORTANCES.find(self.importance).passes]
        calibration = Calibration(inputs[0], None, problem.objective) if inputs else None
        scores = importance_scores(problem.graph, problem.network, self.importance, calibration)
        return widths_above_threshold(problem.limits, scores)
