"""What a model-based search knows: a surrogate that is conditioned on all evaluations."""

import torch

from gnnrl_lightning.search.knowledge import Knowledge
from tests.search.test_methods import problem_of, pruner  # noqa: F401  (a fixture)


def test_the_surrogate_is_made_again_when_there_are_new_evaluations(pruner):  # noqa: F811
    problem = problem_of(pruner, evaluations=60)
    problem.start(from_sensitivity=True)
    knowledge = Knowledge(problem, lambda scored: scored.merit[0])
    surrogate = knowledge.surrogate
    assert knowledge.surrogate is surrogate
    new = problem.project(problem.graph.widths * torch.rand(20, 4, generator=torch.Generator().manual_seed(0)))
    before = (surrogate.mean(new) + torch.tensor([problem.ask(widths, "test").merit[0] for widths in new])).abs().mean()
    widths, rewards = knowledge.evaluated()
    assert len(widths) == len(rewards) == len(problem.history)
    after = (knowledge.surrogate.mean(new) + rewards[-20:]).abs().mean()
    assert knowledge.surrogate is not surrogate and after < 0.5 * before
