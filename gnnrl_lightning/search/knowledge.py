"""What a model-based search knows of its candidates: the surrogate, conditioned on all evaluations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gnnrl_lightning.evaluation.result import DIVERGENCE, Evaluation
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.surrogate.likeness import likeness
from gnnrl_lightning.surrogate.mixture import Surrogate
from gnnrl_lightning.surrogate.prior import prior_forms
from gnnrl_lightning.surrogate.terms import Terms


def evaluated(history: Sequence[Evaluation], reward: Callable[[Evaluation], float]) -> tuple[Tensor, Tensor]:
    """Widths `(n, G)` int64 and rewards `(n,)` float64 of evaluations: the training data of a surrogate or proxy.

    A candidate whose outputs overflow has the least reward of the others: next to its own, which is far below all,
    their differences would look like noise. A score of the user's own, which comes without a divergence, is finite.
    """
    widths = torch.tensor([item.widths for item in history], dtype=torch.int64)
    rewards = torch.tensor([float(reward(item)) for item in history], dtype=torch.float64)
    sound = torch.tensor([math.isfinite(item.scores.get(DIVERGENCE, 0.0)) for item in history], dtype=torch.bool)
    return widths, rewards.where(sound, rewards[sound].min()) if sound.any() else rewards


class Knowledge:
    """Knowledge of a search problem.

    Args:
        problem: The problem.
        reward: Turns an evaluation into a reward.
    """

    def __init__(self, problem: SearchProblem, reward: Callable[[Evaluation], float]) -> None:
        self.problem, self.reward = problem, reward
        self.terms = Terms(problem.graph.widths, problem.sensitivity.of_groups, likeness(problem.graph))
        self.priors = prior_forms(self.terms, problem.limits.allowed.removable is not None)
        self._known = -1

    def evaluated(self) -> tuple[Tensor, Tensor]:
        """Widths `(n, G)` and rewards `(n,)` of the candidates so far; scoring one again tells nothing new."""
        return evaluated([*{item.widths: item for item in self.problem.history}.values()], self.reward)

    @property
    def surrogate(self) -> Surrogate:
        """The surrogate, conditioned on everything that is known so far."""
        if len(self.problem.history) != self._known:
            self._known = len(self.problem.history)
            widths, rewards = self.evaluated()
            self._surrogate = Surrogate(self.terms, self.priors, widths, -rewards)
        return self._surrogate
