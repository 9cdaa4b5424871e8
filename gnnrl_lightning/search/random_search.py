"""Random search."""

from __future__ import annotations

import torch

from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.seeds import generator_for


def random_search(problem: SearchProblem, seed: int) -> None:
    """Score the starting candidates, then projections of keep ratios drawn uniformly from [0, 1]."""
    problem.start()
    keep = torch.rand(problem.left, len(problem.graph.groups), generator=generator_for(seed), dtype=torch.float64)
    for widths in problem.project(problem.graph.widths * keep):
        problem.ask(widths, "random")
