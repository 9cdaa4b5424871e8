"""What a model-based search knows: a surrogate that is conditioned on all evaluations."""

import math

import pytest
import torch

from gnnrl_lightning.objective import Classification
from gnnrl_lightning.objective.protocol import WORST
from gnnrl_lightning.rl.env.reward import find_reward
from gnnrl_lightning.search.knowledge import Knowledge, evaluated
from tests.search.test_methods import problem_of, pruner  # noqa: F401  (a fixture)
from tests.support.fakes import scored


def test_the_surrogate_is_made_again_when_there_are_new_evaluations(pruner):  # noqa: F811
    problem = problem_of(pruner, evaluations=60)
    problem.start(from_sensitivity=True)
    knowledge = Knowledge(problem, lambda scored: scored.merit[0])
    surrogate = knowledge.surrogate
    assert knowledge.surrogate is surrogate
    keep = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))
    new = problem.unseen(problem.project(problem.graph.widths * keep))
    before = (surrogate.mean(new) + torch.tensor([problem.ask(widths, "test").merit[0] for widths in new])).abs().mean()
    problem.ask(new[-1], "test")  # tells nothing new
    widths, rewards = knowledge.evaluated()
    assert len(widths) == len(rewards) and torch.equal(widths[-len(new) :], new)
    after = (knowledge.surrogate.mean(new) + rewards[-len(new) :]).abs().mean()
    assert knowledge.surrogate is not surrogate and after < 0.5 * before


def test_a_candidate_whose_outputs_overflow_has_the_least_reward_of_the_others():
    """Its own, a thousand below them, would be all that a surrogate sees."""
    history = [scored((width,), divergence=own) for width, own in ((4, 0.1), (2, math.inf), (3, 1.0))]
    reward = find_reward("divergence", Classification())
    widths, rewards = evaluated(history, reward)
    assert widths.tolist() == [[4], [2], [3]] and rewards.tolist() == pytest.approx([math.log(10), 0, 0])
    assert evaluated(history[1:2], reward)[1].tolist() == [-WORST]
