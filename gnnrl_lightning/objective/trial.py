"""What an objective declares and measures is checked on a few examples, before anything is measured or trained."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gnnrl_lightning.errors import UserError, with_place
from gnnrl_lightning.objective.protocol import Figure, Measured, Objective, added_up, measure
from gnnrl_lightning.trees import Tree, count, take

CLOSE = 1e-3
"""Relative difference of sums that counts as rounding."""


def check_declared(objective: Objective) -> None:
    """Refuse an objective without figures, or whose ranking names others.

    Raises:
        UserError: See above.
    """
    name = type(objective).__name__
    figures, ranking = getattr(objective, "figures", None), getattr(objective, "ranking", None)
    if not isinstance(figures, Mapping) or not figures or not all(isinstance(row, Figure) for row in figures.values()):
        raise UserError(f"objective {name} has no figures: expected figures = {{name: Figure(...)}}")
    if isinstance(ranking, str) or not ranking or not set(ranking) <= set(figures):
        raise UserError(
            f"objective {name}: ranking is {ranking!r}: expected names of its figures, {', '.join(figures)}, the "
            "primary one first, such as ranking = ('error',)"
        )


def try_objective(objective: Objective, outputs: Tree, targets: Tree) -> None:
    """Measure a few examples.

    Args:
        objective: The objective.
        outputs: Float outputs of a network, for at least two examples.
        targets: Their targets.

    Raises:
        UserError: `measure` fails, does not give one score for each example or sums over the examples, or
            the figures are not those that the objective declares.
    """
    name, examples = f"objective {type(objective).__name__}", count(targets)
    whole = _measured(objective, outputs, targets)
    if tuple(whole.scores.shape) != (examples,):
        raise UserError(
            f"{name}: measure gives scores of shape {tuple(whole.scores.shape)} for {examples} examples: expected "
            f"({examples},)"
        )
    each_alone = [slice(number, number + 1) for number in range(examples)]
    single = [_measured(objective, take(outputs, one), take(targets, one)) for one in each_alone]
    for key, total in whole.sums.items():
        added = sum((each.sums[key] for each in single[1:]), single[0].sums[key])
        if not torch.allclose(total.double(), added.double(), rtol=CLOSE, atol=CLOSE, equal_nan=True):
            raise UserError(
                f"{name}: measure gives {total.tolist()} as {key} of {examples} examples together, and "
                f"{[each.sums[key].tolist() for each in single]} of each alone: expected sums over the examples of a "
                "batch, not means"
            )
    try:
        found = measure(objective, added_up([whole.sums]), examples)
    except UserError:
        raise
    except Exception as error:  # the user's own may raise anything
        raise UserError(f"{name}: values fails: {with_place(error)}; expected figures by name") from error
    if not set(objective.ranking) <= set(found) <= set(objective.figures):
        raise UserError(
            f"{name}: its figures are {', '.join(objective.figures)}, and it measures {', '.join(found) or 'none'}: "
            f"expected at least {', '.join(objective.ranking)}, and none that is not declared"
        )


def _measured(objective: Objective, outputs: Tree, targets: Tree) -> Measured:
    """Measure, and refuse anything but a `Measured` of tensors."""
    name, expected = f"objective {type(objective).__name__}", "Measured(scores, {name: sum})"
    try:
        found = objective.measure(outputs, targets)
    except UserError:
        raise
    except Exception as error:  # the user's own may raise anything
        raise UserError(f"{name}: measure fails: {with_place(error)}; expected {expected}") from error
    if not isinstance(found, Measured):
        raise UserError(f"{name}: measure returns a {type(found).__name__}: expected {expected}")
    for what, value in {"the scores": found.scores, **found.sums}.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{name}: measure gives {what} as a {type(value).__name__}: expected a tensor")
    return found
