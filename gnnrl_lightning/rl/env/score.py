"""Scores: rewards of the candidates at the end of episodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.rl.env.reward import reward_of


class Score(Protocol):
    """Maps candidates to rewards.

    Attributes:
        evaluations: Number of evaluations so far.
    """

    evaluations: int

    def __call__(self, widths: Tensor) -> Tensor:
        """Rewards `(n,)` float32 of candidates `(n, G)` int64."""
        ...


class Evaluated:
    """A score that evaluates every candidate.

    Args:
        evaluator: Maps widths `(G,)` int64 and the proposer's name to an `Evaluation`.
        reward: Maps an evaluation to the reward.
        proposer: Name of the proposer.
    """

    def __init__(
        self,
        evaluator: Callable[[Tensor, str], Evaluation],
        reward: Callable[[Evaluation], float],
        proposer: str = "agent",
    ) -> None:
        self.evaluator, self.reward, self.proposer = evaluator, reward, proposer
        self.evaluations = 0

    def __call__(self, widths: Tensor) -> Tensor:
        """Rewards `(n,)`; costs n evaluations.

        Raises:
            UserError: A reward raises an exception or is not finite.
        """
        self.evaluations += len(widths)
        return torch.tensor([reward_of(self.reward, self.evaluator(row, self.proposer)) for row in widths])
