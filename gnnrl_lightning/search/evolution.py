"""Evolutionary search over keep ratios."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gnnrl_lightning.cost.ranges import positive
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.seeds import generator_for

SURPLUS = 4
"""Children drawn per scored child; children that were scored before are skipped."""


@dataclass(frozen=True)
class Evolution:
    """(mu + lambda) evolution: in each generation, the best mu candidates so far have lambda children.

    A child takes each group's keep ratio from one of two parents; some keep ratios are multiplied by
    exp(sigma * N(0, 1)), and the child is projected onto the budget.

    Args:
        parents: Number of parents, mu.
        children: Number of children, lambda.
        crossover: Share of children that have two parents.
        mutation: Share of a child's groups that are mutated; at least one is.
        sigma: Standard deviation of a mutation of the logarithm of a keep ratio.
        from_sensitivity: Whether the first parents include the candidates derived from the sensitivity; its examples
            are then charged.
        name: Proposer of its candidates.
    """

    parents: int = 4
    children: int = 4
    crossover: float = 0.5
    mutation: float = 0.3
    sigma: float = 0.4
    from_sensitivity: bool = False
    name: str = "evolution"

    def __call__(self, problem: SearchProblem, seed: int) -> None:
        """Score the starting candidates, then run generations until no evaluations are left."""
        problem.start(self.from_sensitivity)
        generation = 0
        while problem.left:
            parents = positive(torch.tensor([scored.widths for scored in problem.ranked()[: self.parents]]))
            keep = self.offspring(parents / problem.graph.widths, generator_for(seed, generation))
            children = problem.project(problem.graph.widths * keep)
            for widths in problem.new(children, min(self.children, problem.left)):
                problem.ask(widths, self.name)
            generation += 1

    def offspring(self, parents: Tensor, generator: torch.Generator) -> Tensor:
        """Keep ratios of `SURPLUS * children` children `(B, G)` of parents `(mu, G)`."""
        count, groups = SURPLUS * self.children, parents.shape[1]
        pairs = torch.randint(len(parents), (2, count), generator=generator)
        first, second = parents[pairs].double()
        crossed = torch.rand(count, 1, generator=generator) < self.crossover
        keep = torch.where(crossed & (torch.rand(count, groups, generator=generator) < 0.5), second, first)
        draws = torch.rand(count, groups, generator=generator)
        changed = (draws < self.mutation) | (draws == draws.amin(1, keepdim=True))
        noise = torch.randn(count, groups, generator=generator, dtype=torch.float64)
        return keep * (self.sigma * noise * changed).exp()
