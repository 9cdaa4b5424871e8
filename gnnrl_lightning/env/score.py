"""What candidates are worth at the end of an episode: evaluated on images, or estimated in microseconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from gnnrl_lightning.env.reward import NegativeTop1Error


class Score(Protocol):
    """Turns candidates into rewards.

    Attributes:
        evaluations: Evaluations on images that it has asked for.
    """

    evaluations: int

    def __call__(self, widths: Tensor) -> Tensor:
        """Rewards `(n,)` float32 of candidates `(n, G)` int64."""
        ...


class Evaluated:
    """Every candidate is evaluated.

    Args:
        evaluator: Scores a candidate: (widths `(G,)` int64, proposer) to an `Evaluation`.
        reward: Turns an evaluation into the reward; minus the top-1 error by default.
        proposer: Name under which the evaluator counts the candidates.
    """

    def __init__(
        self,
        evaluator: Callable[[Tensor, str], Any],
        reward: Callable[[Any], float] | None = None,
        proposer: str = "agent",
    ) -> None:
        self.evaluator, self.reward, self.proposer = evaluator, reward or NegativeTop1Error(), proposer
        self.evaluations = 0

    def __call__(self, widths: Tensor) -> Tensor:
        """Rewards `(n,)`, at the cost of n evaluations."""
        self.evaluations += len(widths)
        return torch.tensor([float(self.reward(self.evaluator(row, self.proposer))) for row in widths])


class Proxy:
    r"""Estimates rewards from what narrowing each group alone costs, and learns from every evaluation that is made.

    The reward of a candidate with errors :math:`e_g` of its groups is estimated as

    .. math::
        \hat r = c - s \sum_g b_g e_g, \qquad b_g \sim N(1, \tau^2)

    c and s are the weighted least-squares line through the evaluations so far, b the posterior mean given what the
    line leaves over. The n evaluations that are nearest to the best one count most (weight 1/2 at the median), since
    that is where the search is. Before there are two evaluations that differ, it is minus the sum of the errors.

    Args:
        errors: Errors of the groups, `(n, G)` widths to `(n, G)`: see `gnnrl_lightning.evaluation.tables.ErrorTable`.
        evaluated: The evaluations so far: widths `(n, G)` and rewards `(n,)`.
        spread: :math:`\tau`, how far the weights of groups may be from each other; 0 keeps them equal.

    Attributes:
        evaluations: None: estimates are free.
    """

    def __init__(
        self,
        errors: Callable[[Tensor], Tensor],
        evaluated: Callable[[], tuple[Tensor, Tensor]],
        spread: float = 1.0,
    ) -> None:
        self.errors, self.evaluated, self.spread = errors, evaluated, spread
        self.evaluations = 0
        self._known = -1
        self._offset, self._slopes = 0.0, torch.ones(())

    def __call__(self, widths: Tensor) -> Tensor:
        """Estimates `(n,)`."""
        known, rewards = self.evaluated()
        if len(rewards) != self._known:
            self._known = len(rewards)
            self._fit(self.errors(known) if len(rewards) else known.double(), rewards.double())
        return (self._offset - (self._slopes * self.errors(widths)).sum(1)).float()

    def _fit(self, errors: Tensor, rewards: Tensor) -> None:
        """Learn from evaluations with errors `(n, G)` and rewards `(n,)`."""
        if len(rewards) < 2 or float(rewards.max() - rewards.min()) == 0:
            return
        distance = rewards.max() - rewards
        weight = 1 / (1 + (distance / distance.median().clamp(min=1e-12)).square())
        total = errors.sum(1)
        centre, level = ((weight * part).sum() / weight.sum() for part in (total, rewards))
        variance = (weight * (total - centre).square()).sum()
        slope = -float((weight * (total - centre) * (rewards - level)).sum() / variance.clamp(min=1e-12))
        slope = max(slope, 1e-6)
        left = rewards - level + slope * (total - centre)
        noise = float((weight * left.square()).sum() / weight.sum())
        # Ridge regression of what the line leaves over, in the dual form: n is small, G may be large.
        centred = -slope * (errors - (weight[:, None] * errors).sum(0) / weight.sum())
        kernel = self.spread**2 * centred @ centred.T + torch.diag(noise / weight + 1e-12)
        change = self.spread**2 * centred.T @ torch.linalg.solve(kernel, left)
        self._slopes = slope * (1 + change).clamp(min=0)
        self._offset = float(level + (self._slopes * (weight[:, None] * errors).sum(0) / weight.sum()).sum())
