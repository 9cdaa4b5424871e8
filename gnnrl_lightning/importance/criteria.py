"""Scores of all channels of a network by a named criterion, and the choice of the best.

There are two kinds of criteria. A `Criterion` gives every element of every parameter a score; the score of a channel is
the sum over all elements that are removed with it, in all tensors of its group. A `Ranking` gives the scores of the
channels themselves. A user's own is a criterion that is given as a callable, or added to `CRITERIA`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl_lightning.calibration.moments import Moments
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.importance.gradients import fisher, taylor
from gnnrl_lightning.importance.magnitude import batch_norm_scale, geometric_median, l1, l2, random
from gnnrl_lightning.importance.subject import Calibration, Subject
from gnnrl_lightning.importance.surgeon import surgeon

Criterion = Callable[[nn.Module, Mapping[str, Tensor], "Calibration | None"], Mapping[str, Tensor]]
"""`(network, prunable parameters by name, calibration) -> importance of each element, by name`.

The calibration is what `plan` was given: images, a tuple of images and labels, or None.
"""

Ranking = Callable[[Subject], list[Tensor]]
"""`(subject) -> importance of each channel, (sets, width) for each group`."""

CRITERIA: dict[str, Criterion] = {
    "l1": l1,
    "l2": l2,
    "batch_norm": batch_norm_scale,
    "taylor": taylor,
}
"""Name -> importance of elements."""

RANKINGS: dict[str, Ranking] = {
    "geometric_median": geometric_median,
    "fisher": fisher,
    "surgeon": surgeon,
    "random": random,
}
"""Name -> importance of channels."""


PASSES = {"taylor": "taylor", "fisher": "fisher", "surgeon": "moments"}
"""Criteria that read the calibration images -> what is found out in the pass over them."""


def importance_passes(importance: str | Criterion) -> tuple[str, ...]:
    """What a criterion finds out in passes over the calibration images; of a user's own, one pass is assumed."""
    name = PASSES.get(importance) if isinstance(importance, str) else "importance"
    return () if name is None else (name,)


def check_importance(importance: str | Criterion) -> None:
    """Refuse a name that is neither a criterion nor a ranking.

    Raises:
        UserError: The name is unknown.
    """
    if isinstance(importance, str) and importance not in CRITERIA and importance not in RANKINGS:
        names = ", ".join((*CRITERIA, *RANKINGS))
        raise UserError(f"importance is {importance!r}: expected one of {names}, or a callable")


def importance_scores(
    graph: Any,
    network: nn.Module,
    importance: str | Criterion,
    calibration: Calibration | None,
    moments: Mapping[str, Moments] | None = None,
) -> list[Tensor]:
    """Score of every channel of every group: `(sets, width)` float64 each.

    They hold for all widths: compute them once for a network.

    Args:
        graph: The traced network.
        network: The network itself.
        importance: A name of `CRITERIA` or `RANKINGS`, or a criterion.
        calibration: Images, or images and labels, for criteria that need data.
        moments: Moments of what the layers read, where they have been collected already.

    Raises:
        UserError: The criterion is unknown, needs images, says nothing about a group, or gives scores that are not
            finite.
    """
    check_importance(importance)
    subject = Subject(graph, network, calibration, moments)
    if isinstance(importance, str) and importance in RANKINGS:
        scores = RANKINGS[importance](subject)
    else:
        criterion = CRITERIA[importance] if isinstance(importance, str) else importance
        scores = _sum_up(subject, criterion(network, subject.parameters, calibration))
    for group, score in zip(graph.groups, scores, strict=True):
        if not bool(score.isfinite().all()):
            raise UserError(f"importance {_name(importance)} gives {group.name} scores that are not finite")
    return scores


def _name(importance: str | Criterion) -> str:
    return importance if isinstance(importance, str) else getattr(importance, "__name__", "callable")


def _sum_up(subject: Subject, elements: Mapping[str, Tensor]) -> list[Tensor]:
    """Sum the scores of elements over everything that is removed with a channel."""
    total = torch.zeros(sum(subject.sizes), dtype=torch.float64)
    scored = torch.zeros(len(total), dtype=torch.bool)
    for name, values in elements.items():
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        for numbers, slices in subject.slices(name, values):
            total.index_add_(0, numbers, slices.sum(tuple(range(1, slices.dim()))).double().cpu())
            scored[numbers] = True
    for group, part in zip(subject.graph.groups, subject.split(scored), strict=True):
        if not bool(part.all()):
            raise UserError(f"this importance says nothing about the channels of {group.name}: choose another")
    return subject.split(total)


def keep_best(scores: Tensor, width: int) -> Tensor:
    """Ranks of the `width` highest scores of each index set, ascending: `(sets, width)`; ties keep the first."""
    return scores.argsort(dim=1, descending=True, stable=True)[:, :width].sort(1)[0]
