"""What the proxy was worth: how well it ranks candidates, and what the policy proposed once it had left it."""

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
    """Figures about the two fidelities of a search.

    Args:
        evaluations: In the order in which they were asked for.
        sensitivity: Summed losses `(n,)` of candidates `(n, G)`, from which the proxy starts.
        agent: Proposer of the agent's candidates.
        episodes: Of an iteration.
        primary: Name of the objective's primary figure.

    Returns:
        `tau`: Kendall's rank correlation of these sums, negated, with the primary figure in its direction over all
        distinct candidates, between -1 and 1; None where there is no ranking. `first_iteration`, `last_iteration`: mean
        primary figure of the candidates that the agent proposed right after its warm-up in the proxy, and of its last
        ones; None without any.
    """
    distinct = list({item.widths: item for item in reversed(evaluations)}.values())
    own = [item.scores[primary] for item in evaluations if item.proposer == agent]
    return {
        "tau": _tau(distinct, sensitivity),
        "first_iteration": fmean(own[:episodes]) if own else None,
        "last_iteration": fmean(own[-episodes:]) if own else None,
    }


def _tau(distinct: Sequence[Evaluation], sensitivity: Callable[[Tensor], Tensor]) -> float | None:
    merits = torch.tensor([item.merit[0] for item in distinct], dtype=torch.float64)
    if len(merits.unique()) < 2:
        return None
    losses = sensitivity(torch.tensor([item.widths for item in distinct], dtype=torch.int64)).double()
    if len(losses.unique()) < 2:
        return None
    return float(cast(Tensor, kendall_rank_corrcoef(-losses, merits)))
