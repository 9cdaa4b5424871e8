"""Model-based search with the surrogate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gnnrl_lightning.search.model_based import ModelBasedSearch
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.surrogate.model import Surrogate, flat_prior
from gnnrl_lightning.surrogate.terms import Terms


@dataclass(frozen=True)
class SurrogateSearch(ModelBasedSearch):
    """The surrogate of the agent, without an agent, predicts rewards."""

    name: str = "surrogate"

    def functions(self, problem: SearchProblem, pool: Tensor, generator: torch.Generator) -> Tensor:
        """Rewards by the surrogate, which predicts their negatives."""
        scored = problem.ranked()
        widths = torch.tensor([item.widths for item in scored])
        losses = -torch.tensor([item.merit[0] for item in scored], dtype=torch.float64)
        terms = Terms(problem.graph, problem.sensitivity.of_groups)
        surrogate = Surrogate(terms, flat_prior(terms), widths, losses)
        return -torch.cat([surrogate.draw(self.draws, generator)(pool), surrogate.mean(pool)[None]])
