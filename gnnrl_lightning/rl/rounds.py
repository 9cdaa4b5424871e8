"""Rounds of evaluations: of the candidates that a policy imagines, the most promising ones are scored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.rl.env.imagination import Imagination
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.search.variations import ask_maximisers, unseen, variations
from gnnrl_lightning.seeds import generator_for

PARENTS, VARIATIONS = 6, 256
"""Best candidates that are varied, and variations, where a policy imagines too few new candidates."""


class Rounds:
    """Scores the most promising candidates of imagined episodes.

    The first ones maximise functions drawn from the surrogate's posterior, the last one its mean. A candidate that has
    been scored is never asked for again: where too few are new, variations of the best candidates take their places.

    Args:
        problem: Scores and counts the candidates.
        imagination: Draws the functions.
        reward: Turns an evaluation into a reward.
        proposer: Name under which the candidates are counted.
    """

    def __init__(
        self, problem: SearchProblem, imagination: Imagination, reward: Callable[[Any], float], proposer: str
    ) -> None:
        self.problem, self.imagination, self.reward, self.proposer = problem, imagination, reward, proposer

    def __call__(self, widths: Tensor, count: int, seed: int) -> Tensor:
        """Score candidates.

        Args:
            widths: Final widths `(n, G)` of imagined episodes.
            count: Number of candidates to score.
            seed: Of the functions and variations.

        Returns:
            Rewards `(m,)`, m at most count.
        """
        generator = generator_for(seed)
        pool = unseen(self.problem, widths)
        if len(pool) < count:
            pool = torch.cat([pool, variations(self.problem, PARENTS, VARIATIONS, generator)])
        drawn = self.imagination.functions(count - 1, generator)(pool) if count > 1 else torch.zeros(0, len(pool))
        functions = torch.cat([drawn, -self.imagination.surrogate.mean(pool)[None]])
        asked = ask_maximisers(self.problem, pool, functions, self.proposer)
        return torch.tensor([float(self.reward(item)) for item in asked])
