"""Model-based search with the surrogate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gnnrl_lightning.search.knowledge import Knowledge
from gnnrl_lightning.search.model_based import Functions, ModelBasedSearch
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.surrogate.mixture import EXPLORATION


@dataclass(frozen=True)
class SurrogateSearch(ModelBasedSearch):
    """The surrogate of the agent, without an agent, predicts rewards.

    Args:
        exploration: Share of their deviations from the posterior mean that the drawn functions keep, as for the agent.
    """

    name: str = "surrogate"
    random: int | None = None
    exploration: float = EXPLORATION

    def model(self, problem: SearchProblem) -> Functions:
        """Rewards by the surrogate, which predicts their negatives."""
        knowledge = Knowledge(problem, lambda scored: scored.merit[0])

        def functions(pool: Tensor, generator: torch.Generator) -> Tensor:
            surrogate = knowledge.surrogate
            return -torch.cat(
                [surrogate.draw(self.draws, generator, self.exploration)(pool), surrogate.mean(pool)[None]]
            )

        return functions
