"""Agents that search a range of budgets at once."""

from functools import partial

import pytest
import torch
from torch import nn

from gnnrl_lightning import Budget, trace
from gnnrl_lightning.rl.env.options import EpisodeOptions
from gnnrl_lightning.rl.environments import AGENT
from gnnrl_lightning.rl.learners import DDPG, GNNRL
from gnnrl_lightning.rl.policies import LogKeep
from gnnrl_lightning.rl.range_acquisition import RangeAcquisition, radical_inverse
from gnnrl_lightning.search.baselines import FROM_SENSITIVITY, starting_candidates
from gnnrl_lightning.search.problem import SearchProblem
from tests.rl.learners.test_gnnrl import equal, trainer, weights
from tests.rl.test_environments import SMALL, problem_of, started
from tests.support.fakes import Landscape, SaveAt, random_sensitivity, small_graph
from tests.support.networks_branches import Residual

pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
]

RANGE = (0.2, 0.8)
SHARES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
LAST = 1 + len(SHARES)
"""Evaluations at the end of a search: the budget's and the shares'."""


def searching(problem=None, seed=0, learner=GNNRL, **episode):
    given = {"episodes_per_iteration": 4, "proxy_warmup": 2, "proxy_between": 1, "proxy_episodes": 16, "seed": seed}
    ppo = {"make_policy": partial(SMALL, distribution=LogKeep), "epochs": 2, "minibatches": 2, "target_kl": None}
    episode = {"surrogate": None, "reward": "top1", "macs_range": RANGE} | episode
    return started(learner, problem, episode=episode, **given, **(ppo if learner is GNNRL else {}))


def own(problem):
    return torch.tensor([item.widths for item in problem.history if item.proposer == AGENT])


def shares_of(problem, widths):
    return problem.graph.cost.macs(widths) / problem.limits.dense["macs"]


def test_limits_are_spread_evenly_however_many_there_are():
    assert [radical_inverse(number) for number in range(8)] == [0, 0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875]
    drawn = torch.tensor([radical_inverse(number) for number in range(50)])
    assert torch.histc(drawn, 5, 0, 1).min() >= 9


@pytest.mark.parametrize("learner", [GNNRL, DDPG])
def test_new_candidates_fill_budgets_all_over_the_range(learner):
    agent, problem = searching(problem_of(evaluations=3 + 6 + 6 * 4 + LAST), learner=learner)
    assert isinstance(agent.evaluate, RangeAcquisition)
    trainer(agent.iterations(6)).fit(agent)
    widths = own(problem)
    assert len(widths) == 24 == len({*map(tuple, widths.tolist())} - {item.widths for item in problem.history[:6]})
    shares = shares_of(problem, widths)
    assert float(shares.min()) > 0.15 and float(shares.max()) <= 0.8
    assert torch.histc(shares.float(), 3, 0.2, 0.8).min() >= 6
    assert 0 < agent.evaluate.figures["search/imagined"] <= 1 and "search/distance" not in agent.evaluate.figures


def test_the_front_is_above_dynamic_programming_and_never_falls():
    """For all seven budgets, with fewer than six evaluations for each of them."""
    agent, problem = searching(problem_of(evaluations=3 + 6 + 6 * 4 + LAST))
    trainer(agent.iterations(6)).fit(agent)
    found = agent.evaluate.score_front()
    assert tuple(found) == SHARES and problem.left >= 0
    propose, margins = FROM_SENSITIVITY["dynamic_programming"], []
    for share, item in found.items():
        limits = problem.limits.with_limits(macs=share)
        assert float(shares_of(problem, torch.tensor([item.widths]))) <= share
        other = problem._evaluate.top1(propose(problem.graph, limits, problem.sensitivity))
        margins.append(item.top1 - float(other))
    assert min(margins) > -0.5 and sum(margins) / len(margins) > 1
    merits = [item.merit for item in found.values()]
    assert merits == sorted(merits)
    # The candidate of the budget itself is among the last ones.
    budget = problem.limits.limits["macs"]
    assert any(0.9 * budget < problem.graph.cost.macs(row) <= budget for row in own(problem)[24:])
    agent.evaluate.score_front()  # what is left is spent, and no more
    assert problem.left >= 0


def test_rounds_leave_the_evaluations_of_the_front():
    agent, problem = searching(problem_of(evaluations=3 + 6 + 4 + 2 + LAST))
    trainer(agent.iterations(3)).fit(agent)
    assert problem.left == LAST and len(own(problem)) == 6
    agent.evaluate.score_front()
    assert problem.left < LAST


def test_one_budget_has_no_front():
    agent, problem = searching(macs_range=None)
    assert not isinstance(agent.evaluate, RangeAcquisition) and problem.spent == 9


# An iteration is four optimiser steps; rounds are in the third and the fifth of six.
@pytest.mark.parametrize("step", [6, 14])
def test_resumes_bit_by_bit(tmp_path, step):
    whole, problem = searching()
    trainer(6).fit(whole)
    begun, before = searching()
    trainer(-(-step // 4), callbacks=[SaveAt(step, tmp_path / "begun.ckpt")]).fit(begun)
    resumed, _ = searching(before)
    torch.manual_seed(17)
    trainer(6).fit(resumed, ckpt_path=tmp_path / "begun.ckpt", weights_only=True)
    assert equal(weights(whole), weights(resumed))
    assert [item.widths for item in before.history] == [item.widths for item in problem.history]
    assert resumed.evaluate.score_front() == whole.evaluate.score_front()


def test_episodes_start_from_known_candidates_at_their_own_budgets():
    agent, problem = searching()
    env = agent.proxy
    env.reset(40, torch.Generator().manual_seed(0))
    start = env.imagined.start
    limits = env._limits["macs"] / problem.limits.dense["macs"]
    spent = shares_of(problem, start.long()).double()
    assert bool((spent <= limits).all()) and float((limits - spent).max()) < 0.12
    assert float(limits.max() - limits.min()) > 0.5


def test_whole_groups_may_go_at_any_budget():
    graph = trace(Residual(), torch.zeros(1, 3, 10, 10))
    limits = Budget(macs=0.3, min_width=0).on(graph)
    evaluate = Landscape(graph, torch.where(limits.allowed.removable, 0.02, 0.9))  # best without them
    starting = starting_candidates(graph, limits)
    agent, problem = searching(SearchProblem(graph, limits, evaluate, 80, starting, lambda: random_sensitivity(graph)))
    trainer(agent.iterations(5)).fit(agent)
    absent = (own(problem) == 0).sum(1)
    assert int(absent.max()) > 1 and len(own(problem)) == 20
    front = torch.tensor([item.widths for item in agent.evaluate.score_front().values()])
    assert torch.equal(problem.project(front, 0.8)[-1], front[-1]) and int((front == 0).sum(1).max()) > 1


def test_first_candidates_vary_the_best_one_at_their_own_limit(monkeypatch):
    """The best one at all limits is the widest: narrowed by one factor, it is poor at the others."""
    given = []
    monkeypatch.setattr(
        "gnnrl_lightning.rl.range_acquisition.first_variations",
        lambda problem, centre, count, spread, generator, macs: (given.append((centre, macs)), centre[None][:0])[1],
    )
    graph = trace(Residual(), torch.zeros(1, 3, 10, 10))
    limits = Budget(macs=0.3, min_width=0).on(graph)
    evaluate = Landscape(graph, torch.full((len(graph.groups),), 0.7))
    starting = starting_candidates(graph, limits)
    agent, problem = searching(SearchProblem(graph, limits, evaluate, 80, starting, lambda: random_sensitivity(graph)))
    agent.proxy.reset(8, torch.Generator().manual_seed(0))
    agent.evaluate(agent.proxy.widths, 4, 0)
    assert len(given) == 4 and len({macs for _, macs in given}) == 4
    for centre, macs in given:
        assert bool(problem.limits.met(centre, problem.limits_at(macs)))
        spent = float(problem.graph.cost.macs(centre)) / problem.limits.dense["macs"]
        assert macs - spent < 0.15


@pytest.mark.parametrize("budget", [Budget(params=0.9), Budget(macs=0.9), Budget(macs=0.1)])
def test_the_budget_may_lie_outside_the_range_or_limit_no_macs(budget):
    agent, problem = searching(problem_of(limits=budget.on(small_graph())), macs_range=(0.2, 0.5))
    trainer(agent.iterations(2)).fit(agent)
    front = agent.evaluate.score_front()
    assert all(float(shares_of(problem, torch.tensor([item.widths]))) <= share for share, item in front.items())
    met = [item for item in problem.history if problem.limits.met(torch.tensor(item.widths))]
    assert front and any(item.proposer == AGENT for item in met)


def test_a_share_that_no_candidate_meets_is_left_out():
    """Nothing is left for it, and the starting candidates are larger."""
    agent, problem = searching(problem_of(evaluations=3 + 6))
    assert problem.left == 0 and 0.2 not in agent.evaluate.score_front() and problem.left == 0


@pytest.mark.parametrize("ends", [(0.123456789, 0.5012874), (1 / 3, 2 / 3)])
def test_shares_stay_within_the_range(ends):
    shares = EpisodeOptions(macs_range=ends).shares
    assert (shares[0], shares[-1]) == ends and len(shares) == 7 and list(shares) == sorted(shares)


def test_a_search_goes_on_until_everything_is_known():
    """A network of one group: the widths that the range allows are soon all scored, and no other is asked for."""
    graph = trace(nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 3)), torch.zeros(1, 8))
    limits = Budget(macs=0.5).on(graph)
    evaluate, starting = Landscape(graph, torch.tensor([0.6])), starting_candidates(graph, limits)
    agent, problem = searching(SearchProblem(graph, limits, evaluate, 99, starting, lambda: random_sensitivity(graph)))
    trainer(agent.iterations(10)).fit(agent)
    widths = {item.widths[0] for item in problem.history if item.proposer == AGENT}
    assert {item.widths[0] for item in problem.history} >= set(range(4, 19)) and len(widths) < 16
    assert agent.trainer.current_epoch < agent.iterations(10)
