"""Importance: a score for every channel of a network, by name or import path, and selection of the best channels.

A row of `IMPORTANCES` scores channels. Most criteria score the elements of parameters instead; `from_elements` sums
these over all elements that are removed with a channel.

```
IMPORTANCES.register("mine", my_criterion)  # then by name in Python and YAML
```
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl_lightning.calibration.moments import Moments
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.importance.context import Calibration, ImportanceContext
from gnnrl_lightning.importance.gradients import fisher, taylor
from gnnrl_lightning.importance.magnitude import batch_norm_scale, geometric_median, l1, l2, random
from gnnrl_lightning.importance.surgeon import surgeon
from gnnrl_lightning.networks import eval_mode
from gnnrl_lightning.registry import Registry, as_callable
from gnnrl_lightning.surgery.traced import TracedNetwork

Criterion = Callable[[nn.Module, Mapping[str, Tensor], "Calibration | None"], Mapping[str, Tensor]]
"""`(network, prunable parameters by name, calibration) -> importance of each element, by name`.

The calibration has `inputs`, `targets` or None, and the `objective`; it is None where there are no examples.
"""


@dataclass(frozen=True)
class Importance:
    """A scoring of channels.

    Attributes:
        score: Returns the importance of each channel, `(sets, width)` for each group.
        passes: Passes over the calibration examples that it needs, by the name of their result; each name counts once.
            `moments` is the pass of `ImportanceContext.moments`, shared with repairs and sensitivities.
    """

    score: Callable[[ImportanceContext], list[Tensor]]
    passes: tuple[str, ...] = ()


def from_elements(criterion: Criterion, passes: tuple[str, ...] = ()) -> Importance:
    """Return the importance of channels as the sum of a criterion over all elements that are removed with a channel.

    Args:
        criterion: Scores the elements of parameters.
        passes: As in `Importance`.
    """

    def score(context: ImportanceContext) -> list[Tensor]:
        return _sum_up(context, criterion(context.network, context.parameters, context.calibration))

    return Importance(score, passes)


def _as_importance(given: Any) -> Importance:
    """Return a row unchanged, or make a row from a criterion, which counts one separate pass."""
    if isinstance(given, Importance):
        return given
    expected = "an Importance, or a function (network, parameters, calibration) -> scores by name"
    criterion = as_callable(given, expected, 3)
    return from_elements(criterion, (f"importance {Registry.name_of(given)}",))


IMPORTANCES: Registry[Importance] = Registry("importance", _as_importance)
"""Name -> importance."""

IMPORTANCES.register("l1", from_elements(l1))
IMPORTANCES.register("l2", from_elements(l2))
IMPORTANCES.register("batch_norm", from_elements(batch_norm_scale))
IMPORTANCES.register("taylor", from_elements(taylor, ("taylor",)))
IMPORTANCES.register("geometric_median", Importance(geometric_median))
IMPORTANCES.register("fisher", Importance(fisher, ("fisher",)))
IMPORTANCES.register("surgeon", Importance(surgeon, ("moments",)))
IMPORTANCES.register("random", Importance(random))


def importance_scores(
    graph: TracedNetwork,
    network: nn.Module,
    importance: str | Importance | Criterion,
    calibration: Any,
    moments: Mapping[str, Moments] | None = None,
) -> list[Tensor]:
    """Compute the score of every channel: `(sets, width)` float64 for each group.

    Scores do not depend on widths: compute them once per network.

    Args:
        graph: The traced network.
        network: The network.
        importance: A name of `IMPORTANCES`, an import path, a row, or a criterion.
        calibration: Inputs, or a tensor of inputs and their targets, for an importance that needs examples; a
            `Calibration` says the objective, too; None for none.
        moments: Moments of the layers' inputs, if they have been collected already.

    Raises:
        UserError: The importance is unknown, fails, needs examples, has no scores for a group, or returns scores of a
            wrong shape or that are not finite.
    """
    context, name = (
        ImportanceContext(graph, network, Calibration.of(calibration), moments),
        Registry.name_of(importance),
    )
    scores = _scores(IMPORTANCES.find(importance), name, context)
    for group, score in zip(graph.groups, scores, strict=True):
        if not bool(score.isfinite().all()):
            raise UserError(f"importance {name} returns scores that are not finite for {group.name}: expected numbers")
    return scores


def try_own_importance(
    graph: TracedNetwork, network: nn.Module, importance: str | Importance | Criterion, calibration: Calibration
) -> None:
    """Refuse an importance of the user's own that fails, before the network is trained.

    It is tried once, on the untrained network, unless it needs moments or has a name of `IMPORTANCES`.

    Args:
        graph: The traced network.
        network: The network, trained or not; scores of an untrained one need not be finite.
        importance: As in `importance_scores`.
        calibration: Some examples.

    Raises:
        UserError: It fails, or returns scores of a wrong shape.
    """
    row = IMPORTANCES.find(importance)
    if "moments" not in row.passes and not (isinstance(importance, str) and importance in IMPORTANCES):
        _scores(row, Registry.name_of(importance), ImportanceContext(graph, network, calibration, None))


def _scores(row: Importance, name: str, context: ImportanceContext) -> list[Tensor]:
    """Scores of the right shapes."""
    expected = "(network, parameters, calibration) -> scores of the elements by name"
    with eval_mode(context.network), IMPORTANCES.calling(row, name, expected):
        scores = row.score(context)
    expected = list(zip(context.graph.sets.tolist(), context.graph.widths.tolist(), strict=True))
    shapes = [tuple(score.shape) for score in scores]
    if shapes != expected:
        raise UserError(f"importance {name} returns scores of shapes {shapes}: expected {expected}, (sets, width)")
    return scores


def _sum_up(context: ImportanceContext, elements: Mapping[str, Tensor]) -> list[Tensor]:
    """Sum the scores of elements over all elements that are removed with a channel."""
    total = torch.zeros(sum(context.sizes), dtype=torch.float64)
    scored = torch.zeros(len(total), dtype=torch.bool)
    for name, values in elements.items():
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        for numbers, slices in context.slices(name, values):
            total.index_add_(0, numbers, slices.sum(tuple(range(1, slices.dim()))).double().cpu())
            scored[numbers] = True
    for group, part in zip(context.graph.groups, context.split(scored), strict=True):
        if not bool(part.all()):
            raise UserError(f"this importance has no scores for the channels of {group.name}: choose another one")
    return context.split(total)


def keep_best(scores: Tensor, width: int) -> Tensor:
    """Return the ranks of the `width` highest scores of each index set, ascending, `(sets, width)`; ties: the first."""
    return scores.argsort(dim=1, descending=True, stable=True)[:, :width].sort(1)[0]
