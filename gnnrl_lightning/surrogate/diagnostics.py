"""Diagnostics of the proxy: rank correlation with evaluations, and the quality of proposals after the warm-up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import cast

import torch
from torch import Tensor
from torchmetrics.functional.regression import kendall_rank_corrcoef

from gnnrl_lightning.evaluation.result import Evaluation


def proxy_figures(
    evaluations: Sequence[Evaluation], sensitivity: Callable[[Tensor], Tensor], agent: str, episodes: int, primary: str
) -> dict[str, float | None]:
    """Compute figures on the proxy of a search.

    Args:
        evaluations: Evaluations, in the order of the requests.
        sensitivity: Total losses `(n,)` of candidates `(n, G)`, on which the proxy is based.
        agent: Proposer of the agent's candidates.
        episodes: Episodes per iteration.
        primary: Name of the objective's primary score.

    Returns:
        `tau`: Kendall's rank correlation between the negated total losses and the primary score (negated if lower is
        better) over all distinct candidates, between -1 and 1; None if either has no ranking. `first_iteration`,
        `last_iteration`: mean primary score of the agent's candidates in the first iteration after the warm-up, and in
        the last one; None without any.
    """
    distinct = list({item.widths: item for item in reversed(evaluations)}.values())
    losses = sensitivity(torch.tensor([item.widths for item in distinct], dtype=torch.int64))
    own = [item.scores[primary] for item in evaluations if item.proposer == agent]
    return {
        "tau": kendall((-losses).tolist(), [item.merit[0] for item in distinct]),
        "first_iteration": fmean(own[:episodes]) if own else None,
        "last_iteration": fmean(own[-episodes:]) if own else None,
    }


def kendall(expected: Sequence[float], observed: Sequence[float]) -> float | None:
    """Kendall's rank correlation of two sequences; None if either has no ranking."""
    first, second = (torch.tensor(values, dtype=torch.float64) for values in (expected, observed))
    if len(first.unique()) < 2 or len(second.unique()) < 2:
        return None
    return float(cast(Tensor, kendall_rank_corrcoef(first, second)))
