"""Rewards: what an evaluated candidate is worth.

```
find_reward("cross_entropy", objective)       # a figure of the objective
find_reward("my_package.my_reward", objective)  # a function from Evaluation to float, or a class of such functions
REWARDS.register("mine", my_reward)           # then by name, with every objective
```
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gnnrl_lightning.errors import UserError, finite_number
from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.objective import Figure, Objective
from gnnrl_lightning.registry import Registry, as_callable

Reward = Callable[[Evaluation], float]
"""`(evaluation) -> reward`, finite, the higher the better."""


@dataclass(frozen=True)
class FigureReward:
    """A figure as a reward, see `Figure.reward`.

    Args:
        name: Its name.
        figure: The figure.
    """

    name: str
    figure: Figure

    def __call__(self, evaluation: Evaluation) -> float:
        """The reward of an evaluation.

        Raises:
            UserError: It does not have the figure: the network has too few classes for it, for one.
        """
        if self.name not in evaluation.scores:
            raise UserError(f"of this network there is no {self.name}: expected one of {', '.join(evaluation.scores)}")
        return self.figure.reward(evaluation.scores[self.name])


def _as_reward(given: Any) -> Reward:
    return as_callable(given, "a function from Evaluation to float, or a class of such functions")


REWARDS: Registry[Reward] = Registry("reward", _as_reward)
"""Name -> reward, beside the figures of the objective."""


def rewards(objective: Objective) -> Registry[Reward]:
    """All rewards by name: the objective's figures, and those of `REWARDS`."""
    found: Registry[Reward] = Registry("reward", _as_reward)
    for name, figure in objective.reported.items():
        found.register(name, FigureReward(name, figure))
    for name, reward in REWARDS.items():
        found.register(name, reward)
    return found


def find_reward(given: Any, objective: Objective, option: str = "episode.reward") -> Reward:
    """A reward by name, by import path, or as it is.

    Args:
        given: A figure of the objective, a name of `REWARDS`, an import path of a function from `Evaluation` to float,
            or of a class whose instances are such functions, or a function; None: the objective's primary figure.
        objective: What the network is for.
        option: The option that names it, for messages.

    Raises:
        UserError: There is no such reward.
    """
    return rewards(objective).find(objective.primary if given is None else given, option)


def check_reward(reward: Reward, name: Any, evaluation: Evaluation) -> None:
    """Refuse a reward that fails, or is no finite number, for an evaluation.

    Args:
        reward: The reward.
        name: Its name or path.
        evaluation: What it is tried on.

    Raises:
        UserError: It fails.
    """
    finite_number(lambda: reward(evaluation), f"episode.reward {name!r}")
