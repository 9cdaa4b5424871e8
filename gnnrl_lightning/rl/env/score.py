"""What candidates are worth at the end of an episode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from gnnrl_lightning.errors import finite_number


class Score(Protocol):
    """Turns candidates into rewards.

    Attributes:
        evaluations: Evaluations that it has asked for.
    """

    evaluations: int

    def __call__(self, widths: Tensor) -> Tensor:
        """Rewards `(n,)` float32 of candidates `(n, G)` int64."""
        ...


class Evaluated:
    """Every candidate is evaluated.

    Args:
        evaluator: Scores a candidate: (widths `(G,)` int64, proposer) to an `Evaluation`.
        reward: Turns an evaluation into the reward.
        proposer: Name under which the evaluator counts the candidates.
    """

    def __init__(
        self,
        evaluator: Callable[[Tensor, str], Any],
        reward: Callable[[Any], float],
        proposer: str = "agent",
    ) -> None:
        self.evaluator, self.reward, self.proposer = evaluator, reward, proposer
        self.evaluations = 0

    def __call__(self, widths: Tensor) -> Tensor:
        """Rewards `(n,)`, at the cost of n evaluations.

        Raises:
            UserError: The reward fails, or is no finite number.
        """
        self.evaluations += len(widths)
        return torch.tensor([self._reward(self.evaluator(row, self.proposer)) for row in widths])

    def _reward(self, evaluation: Any) -> float:
        what = f"the reward of the candidate with widths {list(evaluation.widths)}"
        return finite_number(lambda: self.reward(evaluation), what)  # one alone would spoil all gradients
