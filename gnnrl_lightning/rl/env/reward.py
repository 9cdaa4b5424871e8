"""Rewards: what an evaluated candidate is worth. A user's own is any callable from Evaluation to float."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any, cast

from gnnrl_lightning.errors import UserError, one_line

WORST = 1000.0
"""Nats that count at most: a network whose outputs overflow has infinitely many, and rewards are finite."""


class NegativeTop1Error:
    """Minus the top-1 error on the search split, as a fraction: -(1 - top1 / 100)."""

    def __call__(self, evaluation: Any) -> float:
        """Reward of an evaluation with `top1` in percent."""
        return evaluation.top1 / 100 - 1


class NegativeCrossEntropy:
    """Minus the cross-entropy on the search split, in nats, of which at most `WORST` count."""

    def __call__(self, evaluation: Any) -> float:
        """Reward of an evaluation with `cross_entropy` in nats."""
        return -min(evaluation.cross_entropy, WORST)


class NegativeDivergence:
    """Minus the divergence KL(dense || candidate) of the outputs, in nats, of which at most `WORST` count."""

    def __call__(self, evaluation: Any) -> float:
        """Reward of an evaluation with `divergence` in nats."""
        return -min(evaluation.divergence, WORST)


REWARDS: dict[str, Callable[[Any], float]] = {
    "top1": NegativeTop1Error(),
    "cross_entropy": NegativeCrossEntropy(),
    "divergence": NegativeDivergence(),
}
"""Name -> reward."""


def check_reward(reward: Callable[[Any], float], name: str, evaluation: Any) -> None:
    """Refuse a reward that fails, or is no finite number, for an evaluation.

    Args:
        reward: The reward.
        name: Its name or path.
        evaluation: What it is tried on.

    Raises:
        UserError: It fails.
    """
    try:
        value = float(reward(evaluation))
    except Exception as error:  # the user's own may raise anything
        raise UserError(f"episode.reward {name!r} fails: {one_line(error)}") from error
    if not math.isfinite(value):
        raise UserError(f"episode.reward {name!r} gives {value}: expected a finite number")


def find_reward(name: str) -> Callable[[Any], float]:
    """A reward by its name, or a user's own by its path.

    Args:
        name: A key of `REWARDS`, or the importable path of a function from `Evaluation` to float, or of a class
            whose instances are such functions.

    Raises:
        UserError: There is no such reward.
    """
    if name in REWARDS:
        return REWARDS[name]
    module, _, attribute = name.rpartition(".")
    if not module:
        raise UserError(f"episode.reward is {name!r}: expected one of {', '.join(REWARDS)}, or package.module.name")
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
        found = found() if isinstance(found, type) else found
    except (ImportError, AttributeError, TypeError) as error:
        raise UserError(f"episode.reward {name!r} cannot be imported: {one_line(error)}") from error
    if not callable(found):
        raise UserError(f"episode.reward {name!r} is not a function of an evaluation")
    return cast(Callable[[Any], float], found)
