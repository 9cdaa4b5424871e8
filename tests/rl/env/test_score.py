import math

import pytest
import torch

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.objective import Classification
from gnnrl_lightning.rl.env import Evaluated
from gnnrl_lightning.rl.env.reward import FigureReward
from gnnrl_lightning.surrogate.proxy import Proxy
from tests.support.fakes import small_graph, small_landscape


def test_every_candidate_is_evaluated_and_counted():
    evaluator = small_landscape()
    score = Evaluated(evaluator, FigureReward("cross_entropy", Classification.figures["cross_entropy"]), proposer="me")
    widths = torch.stack([small_graph().widths, small_graph().widths // 2])
    expected = torch.tensor([-(100 - float(evaluator.top1(row))) / 10 for row in widths])
    torch.testing.assert_close(score(widths), expected)
    assert score.evaluations == 2
    assert [proposer for _, proposer in evaluator.calls] == ["me", "me"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_rewards_that_are_not_finite_are_refused(value):
    score = Evaluated(small_landscape(), lambda evaluation: value)
    with pytest.raises(UserError, match=rf"widths \[16, .* is {value}: expected a finite number"):
        score(small_graph().widths[None])


def test_a_reward_that_fails_is_told_in_one_line():
    score = Evaluated(small_landscape(), lambda evaluation: evaluation.scores["beauty"])
    with pytest.raises(
        UserError,
        match=r"^the reward of the candidate .*16, .*\] fails: no key 'beauty' \(test_score.py, line 32\); exp",
    ):
        score(small_graph().widths[None])


def errors(widths):
    """Loss of each group: the square of its removed channels (of 40), in tens."""
    return ((40 - widths.double()) / 10).square()


def truth(widths, weights):
    return -0.05 - 0.1 * (weights * errors(widths)).sum(1).log()


def proxy(weights, evaluations, spread=0.5, noise=0.001):
    generator = torch.Generator().manual_seed(0)
    known = torch.randint(20, 40, (evaluations, len(weights)), generator=generator)
    rewards = truth(known, weights) + noise * torch.randn(evaluations, generator=generator, dtype=torch.float64)
    return Proxy(errors, lambda: (known, rewards), spread)


def test_before_evaluations_it_is_minus_the_logarithm_of_the_sum():
    estimate = Proxy(errors, lambda: (torch.zeros(0, 6, dtype=torch.int64), torch.zeros(0)))
    widths = torch.randint(1, 40, (5, 6))
    torch.testing.assert_close(estimate(widths), -errors(widths).sum(1).log().float())
    assert estimate.evaluations == 0


def test_with_equal_weights_it_finds_the_line():
    weights = torch.ones(6, dtype=torch.float64)
    widths = torch.randint(20, 40, (50, 6))
    estimate = proxy(weights, 20, noise=0.0)(widths)
    torch.testing.assert_close(estimate, truth(widths, weights).float(), atol=1e-4, rtol=0)


def test_it_learns_which_groups_matter_more():
    weights = torch.tensor([2.0, 0.5, 1.0, 1.0, 0.7, 1.4], dtype=torch.float64)
    one, many = proxy(weights, 60, spread=0.0), proxy(weights, 60)
    widths = torch.randint(20, 40, (200, 6), generator=torch.Generator().manual_seed(1))
    wrong, right = ((estimate(widths) - truth(widths, weights)).square().mean().sqrt() for estimate in (one, many))
    assert right < 0.012 and right < wrong / 2


def test_a_few_evaluations_do_not_make_it_forget_the_table():
    """Six rewards that have nothing to do with the errors leave the order of clearly different candidates as it was."""
    known = torch.randint(20, 40, (6, 6), generator=torch.Generator().manual_seed(0))
    rewards = -torch.rand(6, generator=torch.Generator().manual_seed(1))
    estimate = Proxy(errors, lambda: (known, rewards - errors(known).sum(1).log()))
    few, many = estimate(torch.full((1, 6), 39)), estimate(torch.full((1, 6), 20))
    assert few > many
    each = [estimate(torch.full((1, 6), 39) - 19 * torch.eye(6, dtype=torch.int64)[group]) for group in range(6)]
    assert all(few > narrowed for narrowed in each)  # no group comes for nothing


def test_it_takes_in_new_evaluations():
    weights = torch.ones(6, dtype=torch.float64)
    known = torch.randint(20, 40, (12, 6), generator=torch.Generator().manual_seed(0))
    rewards, count = truth(known, weights), 0
    estimate = Proxy(errors, lambda: (known[:count], rewards[:count]))
    before = estimate(known)
    count = 12
    assert not torch.allclose(before, estimate(known))
    torch.testing.assert_close(estimate(known), rewards.float(), atol=1e-4, rtol=0)
