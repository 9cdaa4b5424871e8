"""Rewards of evaluated candidates.

```
find_reward("cross_entropy", objective)       # a figure of the objective
find_reward("my_package.my_reward", objective)  # a function from Evaluation to float, or a class of such functions
REWARDS.register("mine", my_reward)           # then available by name with every objective
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
"""`(evaluation) -> reward`, finite; higher is better."""


@dataclass(frozen=True)
class FigureReward:
    """A figure as a reward, see `Figure.reward`.

    Args:
        name: Name of the figure.
        figure: The figure.
    """

    name: str
    figure: Figure

    def __call__(self, evaluation: Evaluation) -> float:
        """The reward of an evaluation.

        Raises:
            UserError: The evaluation lacks the figure, for example because the network has too few classes.
        """
        if self.name not in evaluation.scores:
            raise UserError(f"this network has no {self.name}: expected one of {', '.join(evaluation.scores)}")
        return self.figure.reward(evaluation.scores[self.name])


def _as_reward(given: Any) -> Reward:
    return as_callable(given, "a function from Evaluation to float, or a class of such functions", 1)


REWARDS: Registry[Reward] = Registry("reward", _as_reward)
"""Name -> reward, in addition to the figures of the objective."""


def rewards(objective: Objective) -> Registry[Reward]:
    """All rewards by name: the objective's figures and the rows of `REWARDS`."""
    found: Registry[Reward] = Registry("reward", _as_reward)
    for name, figure in objective.reported.items():
        found.register(name, FigureReward(name, figure))
    for name, reward in REWARDS.items():
        found.register(name, reward)
    return found


def find_reward(given: Any, objective: Objective) -> Reward:
    """Look up a reward by name or import path, or pass a function through.

    Args:
        given: A figure of the objective, a name of `REWARDS`, a function from `Evaluation` to float, or the import path
            of such a function or of a class whose instances are such functions; None: the objective's primary figure.
        objective: Objective of the network.

    Raises:
        UserError: There is no such reward.
    """
    return rewards(objective).find(objective.primary if given is None else given, "episode.reward")


def reward_of(reward: Reward, evaluation: Evaluation) -> float:
    """Return the reward of a candidate.

    Args:
        reward: The reward.
        evaluation: The evaluation of the candidate.

    Raises:
        UserError: The reward raises an exception or is not finite; a single NaN would make all gradients NaN.
    """
    return finite_number(
        lambda: reward(evaluation), f"the reward of the candidate with widths {list(evaluation.widths)}"
    )


def check_reward(reward: Reward, name: Any, evaluation: Evaluation) -> None:
    """Check that a reward returns a finite number for an evaluation.

    Args:
        reward: The reward.
        name: As it was given: its name, its import path, or the reward itself.
        evaluation: The evaluation to try.

    Raises:
        UserError: The reward raises an exception or is not finite.
    """
    finite_number(lambda: reward(evaluation), f"episode.reward {REWARDS.name_of(name)!r}")
