"""What a model-based search knows of its candidates: values, slopes, and the surrogate that is conditioned on both."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.search.baselines import uniform
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.surrogate.likeness import likeness
from gnnrl_lightning.surrogate.mixture import Surrogate
from gnnrl_lightning.surrogate.prior import prior_forms
from gnnrl_lightning.surrogate.slopes import slopes_from
from gnnrl_lightning.surrogate.terms import Terms

MOST_SLOPES = 8
"""Candidates whose slopes are used, the best ones."""

LAST_SLOPES = 30
"""Evaluations after which slopes are no longer measured: 40 values tell as much without them
(`experiments/benchmarks/slopes.py`)."""


def evaluated(history: Sequence[Any], reward: Callable[[Any], float]) -> tuple[Tensor, Tensor]:
    """Widths `(n, G)` int64 and rewards `(n,)` float64 of evaluations: the training data of a surrogate or proxy."""
    widths = torch.tensor([item.widths for item in history], dtype=torch.int64)
    return widths, torch.tensor([float(reward(item)) for item in history], dtype=torch.float64)


class Knowledge:
    """Knowledge of a search problem; slopes are measured at the best candidate whenever that is a new one.

    Args:
        problem: The problem.
        reward: Turns an evaluation into a reward.
    """

    def __init__(self, problem: SearchProblem, reward: Callable[[Any], float]) -> None:
        self.problem, self.reward = problem, reward
        self.terms = Terms(problem.graph.widths, problem.sensitivity.of_groups, likeness(problem.graph))
        self.priors = prior_forms(self.terms, problem.limits.allowed.removable is not None)
        self._known = (-1, -1)

    def evaluated(self) -> tuple[Tensor, Tensor]:
        """Widths `(n, G)` and rewards `(n,)` of the evaluations so far."""
        return evaluated(self.problem.history, self.reward)

    def look(self) -> None:
        """Measure slopes at the best candidate, if that is a new one, and first at that with one ratio for all groups.

        Nothing is measured without a pruner, after `LAST_SLOPES` evaluations, if fewer than two would be left, or once
        a measurement has told nothing. A collective call.
        """
        problem, measure = self.problem, self.problem.effect_measure
        ranked = problem.ranked()
        if measure is None or not ranked or len(problem.history) > LAST_SLOPES:
            return
        wanted = [torch.tensor(ranked[0].widths)]
        if not problem.known_effects:
            wanted.append(uniform(problem.graph, problem.limits))
        cost = math.ceil(measure.examples / problem.evaluation_examples)
        for widths in wanted:
            if not all(bool(effects.any()) for effects in problem.known_effects.values()):
                return  # the outputs have no gradients: the next ones would cost examples, too
            if tuple(widths.tolist()) not in problem.known_effects and problem.left >= cost + 2:
                problem.effects(widths)

    @property
    def surrogate(self) -> Surrogate:
        """The surrogate, conditioned on everything that is known so far."""
        effects = self.problem.known_effects
        known = len(self.problem.history), len(effects)
        if known != self._known:
            self._known = known
            widths, rewards = self.evaluated()
            best = [item.widths for item in self.problem.ranked() if item.widths in effects][:MOST_SLOPES]
            slopes = [slopes_from(torch.tensor(key), effects[key]) for key in best]
            self._surrogate = Surrogate(self.terms, self.priors, widths, -rewards, slopes)
        return self._surrogate
