"""The agent's environments, its sensitivity, and its proxy."""

from functools import partial

import pytest
import torch

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.result import best_of, within
from gnnrl_lightning.job.stages import fits_agent
from gnnrl_lightning.objective import Classification
from gnnrl_lightning.rl.encoders import GCN
from gnnrl_lightning.rl.env.options import EpisodeOptions
from gnnrl_lightning.rl.env.reward import find_reward
from gnnrl_lightning.rl.environments import AGENT, Environments
from gnnrl_lightning.rl.learners import DDPG, GNNRL
from gnnrl_lightning.rl.policies import Agent
from gnnrl_lightning.rl.state.builder import NODE_DIM
from gnnrl_lightning.search.baselines import FROM_SENSITIVITY, STARTING, starting_candidates
from gnnrl_lightning.search.knowledge import evaluated
from gnnrl_lightning.search.problem import NotApplicable, SearchProblem
from gnnrl_lightning.surrogate.proxy import Proxy
from gnnrl_lightning.surrogate.sensitivity import RATIOS
from tests.rl.learners.test_gnnrl import equal, trainer, weights
from tests.support.fakes import FakeEvaluation, Landscape, SaveAt, random_sensitivity, small_graph

pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
]

LIMITS = Budget(macs=0.5).on(small_graph())
SMALL = partial(Agent, encoder=partial(GCN, hidden=16, layers=1))


def problem_of(evaluations=100, limits=LIMITS, table=True, target=(0.9, 0.4, 0.7, 0.6)):
    """100 images in the holdout; a sensitivity of 250 images, which costs three evaluations."""
    graph, target = small_graph(), torch.tensor(target)
    make = (lambda: random_sensitivity(graph, examples=250)) if table else None
    return SearchProblem(
        graph, limits, Landscape(graph, target), evaluations, starting_candidates(graph, limits), make, 100
    )


def environments_of(problem, measure="outputs", **episode):
    """Without a surrogate, and with the error as the reward, unless the episode's options say otherwise."""
    options = EpisodeOptions(**{"surrogate": False, "reward": None} | episode)
    return Environments(problem.graph, problem.limits, options, measure, problem.objective)


def started(learner=GNNRL, problem=None, measure="outputs", episode=None, **settings):
    """An agent before its search, and its problem."""
    problem = problem or problem_of()
    if not problem.history:
        problem.start(from_sensitivity=measure is not None)
    agent = learner(**settings)
    environments_of(problem, measure, **(episode or {})).connect(agent, problem)
    return agent, problem


@pytest.mark.parametrize("learner", [GNNRL, DDPG])
@pytest.mark.parametrize("max_steps", [1, 3])
def test_environment_and_proxy_have_the_same_states(learner, max_steps):
    """A policy created before the sensitivity is measured acts in the final environment."""
    before = environments_of(problem_of(), max_steps=max_steps).make(None)
    agent, problem = started(learner, episode={"max_steps": max_steps})
    states = NODE_DIM + len(RATIOS)
    assert [env.state_dim for env in (before, agent.env, agent.proxy)] == [states] * 3
    assert [env.action_dim for env in (before, agent.env, agent.proxy)] == [4] * 3
    assert agent.env.max_steps == agent.proxy.max_steps == max_steps
    assert agent.env.initial_action == agent.proxy.initial_action == before.initial_action
    assert problem.spent == 3 + 6 and problem.reads_sensitivity
    own, estimated = (env.graphs(env.reset(2)[0]) for env in (agent.env, agent.proxy))
    assert torch.equal(own.x, estimated.x) and torch.equal(own.edge_attr, estimated.edge_attr)
    # The states contain the statistics of the sensitivity, which were zeros before.
    assert not torch.equal(own.x, before.graphs(before.reset(2)[0]).x)
    assert torch.equal(own.x[:, :NODE_DIM], before.graphs(before.reset(2)[0]).x[:, :NODE_DIM])


def test_episodes_in_the_proxy_cost_nothing_and_those_in_the_environment_one_each():
    agent, problem = started()
    actions = torch.rand(20, generator=torch.Generator().manual_seed(0))
    agent.proxy.reset(5)
    agent.proxy.step(actions)
    assert problem.spent == 9 and agent.proxy.evaluations == 0
    agent.env.reset(5)
    agent.env.step(actions)
    assert problem.spent == 9 + 5 and agent.env.evaluations == 5
    assert [proposer for _, proposer in problem._evaluate.calls[-5:]] == [AGENT] * 5
    assert torch.equal(agent.env.widths, agent.proxy.widths)


@pytest.mark.parametrize(("reward", "expected"), [("top1", [-0.1, -0.25]), ("cross_entropy", [-0.3, -0.9])])
def test_what_a_proxy_learns_from_are_widths_and_rewards(reward, expected):
    history = [FakeEvaluation((4, 2), 90.0, 0.3), FakeEvaluation((3, 3), 75.0, 0.9)]
    widths, rewards = evaluated(history, find_reward(reward, Classification()))
    assert widths.tolist() == [[4, 2], [3, 3]] and widths.dtype == torch.int64
    torch.testing.assert_close(rewards, torch.tensor(expected, dtype=torch.float64))


def test_before_anything_is_scored_there_is_nothing_to_learn_from():
    graph, table = small_graph(), random_sensitivity(small_graph())
    estimate = Proxy(table.of_groups, lambda: evaluated([], find_reward("top1", Classification())))
    widths = graph.widths[None] // 2
    torch.testing.assert_close(estimate(widths), -table(widths).log().float())


def test_the_proxy_learns_from_all_that_was_evaluated():
    """Starting candidates first, then the agent's own: its estimates come to rank as the evaluations do."""
    agent, problem = started()
    graph = problem.graph
    rows = problem.project(graph.widths * torch.rand(64, 4, generator=torch.Generator().manual_seed(1)).clamp(min=0.1))
    truth = problem._evaluate.top1(rows) / 100 - 1

    def left_over():
        estimates = agent.proxy.score(rows).double()
        return float((estimates - truth).square().mean())

    known = problem.history
    expected = Proxy(problem.sensitivity.of_groups, lambda: evaluated(known[:6], find_reward("top1", Classification())))
    torch.testing.assert_close(agent.proxy.score(rows), expected(rows))
    first = left_over()
    agent.env.reset(40)
    agent.env.step(torch.rand(160, generator=torch.Generator().manual_seed(2)))
    assert len(problem.history) == 46
    assert left_over() < first / 2


def test_a_range_of_budgets_lets_the_agent_evaluate_beyond_its_own():
    problem = problem_of(target=(1.0, 1.0, 1.0, 1.0))
    agent, problem = started(problem=problem, episode={"macs_range": (0.3, 0.8)})
    graph, dense = problem.graph, int(problem.graph.cost.macs(problem.graph.widths))
    for env in (agent.env, agent.proxy):
        env.reset(60, torch.Generator().manual_seed(0))
        env.step(torch.full((240,), 0.02))
        ratios = graph.cost.macs(env.widths) / dense
        assert 0.25 < ratios.min() < 0.4 and 0.7 < ratios.max() <= 0.8
    over = [item for item in problem.history if not within(LIMITS, item)]
    assert len(over) > 20 and {item.widths for item in over} <= {tuple(row) for row in agent.env.widths.tolist()}
    # The best candidate exceeds the budget; the delivered one is the best of those that meet it.
    best = best_of([item for item in problem.history if within(LIMITS, item)])
    assert best_of(problem.history).merit > best.merit and best_of(problem.history) in over
    assert int(graph.cost.macs(torch.tensor(best.widths))) <= dense / 2
    with pytest.raises(ValueError, match="does not meet the budget"):
        problem.ask(graph.widths, AGENT)


def test_without_a_range_every_candidate_meets_the_budget():
    agent, problem = started()
    agent.env.reset(20, torch.Generator().manual_seed(0))
    agent.env.step(torch.full((80,), 0.02))
    assert all(within(LIMITS, item) for item in problem.history)
    above = Budget(macs=0.6).on(problem.graph).project(problem.graph.widths)
    with pytest.raises(ValueError, match="does not meet the budget"):
        problem.ask(above, AGENT)


def test_a_range_beside_a_budget_of_parameters():
    """The range applies to MACs; the limit on parameters is the same for all."""
    limits = Budget(params=0.5).on(small_graph())
    agent, problem = started(problem=problem_of(limits=limits), episode={"macs_range": (0.2, 0.9)})
    agent.env.reset(30, torch.Generator().manual_seed(0))
    agent.env.step(torch.full((120,), 0.02))
    assert all(within(limits, item) for item in problem.history)
    assert len({item.widths for item in problem.history}) > 10


def test_with_a_penalty_only_what_is_within_the_budget_is_scored():
    """In both environments: dense widths, and half of each, which have about a quarter of the MACs."""
    agent, problem = started(episode={"penalty": -100.0})
    actions = torch.tensor([0.0] * 4 + [0.5] * 4)
    for env in (agent.env, agent.proxy):
        env.reset(2)
        _, rewards, done = env.step(actions)
        assert done.all() and rewards[0] == -100 and rewards[1] > -1
        assert torch.equal(env.widths, torch.stack([problem.graph.widths, problem.graph.widths // 2]))
    assert problem.spent == 9 + 1 and problem.history[-1].widths == tuple((problem.graph.widths // 2).tolist())


def test_no_table_no_proxy_no_statistics():
    agent, problem = started(measure=None)
    assert agent.proxy is None and agent.iterations(5) == 5
    assert agent.env.state_dim == NODE_DIM == environments_of(problem, None).make(None).state_dim
    assert not problem.reads_sensitivity and problem.spent == 4
    # Also if other methods may read one, and if the agent had a proxy before.
    environments_of(problem).connect(agent, problem)
    assert agent.proxy is not None
    environments_of(problem, None).connect(agent, problem)
    assert agent.proxy is None and agent.env.state_dim == NODE_DIM


def test_a_table_that_is_missing_or_too_dear_is_said():
    with pytest.raises(NotApplicable, match="needs a sensitivity, but none is measured"):
        environments_of(problem_of()).connect(GNNRL(), problem_of(table=False))
    with pytest.raises(NotApplicable, match=r"passes of 250 examples \(100 cost one evaluation\), but only 2 of 2 "):
        environments_of(problem_of()).connect(GNNRL(), problem_of(evaluations=2))


def searching(problem=None, seed=0):
    """Two iterations of 16 episodes in the proxy, then one of 4 in the environment and two in the proxy, and so on."""
    settings = {"proxy_warmup": 2, "proxy_between": 2, "proxy_episodes": 16, "episodes_per_iteration": 4}
    steps = {"epochs": 2, "minibatches": 2, "target_kl": None}
    return started(problem=problem, make_policy=SMALL, seed=seed, **settings, **steps)


def test_two_fidelities_spend_what_was_left_and_no_more():
    """Three for the sensitivity, six for the starting candidates, and three iterations of four of the remaining 13."""
    agent, problem = searching(problem_of(evaluations=22))
    assert problem.left == 13
    trainer(agent.iterations(13 // 4)).fit(agent)
    assert agent.trainer.current_epoch == 2 + 3 + 2 * 2
    assert problem.spent == 9 + 3 * 4 and agent.evaluations == 12 and agent.proxy.evaluations == 0
    assert [proposer for _, proposer in problem._evaluate.calls] == [*STARTING, *FROM_SENSITIVITY] + [AGENT] * 12


def test_the_same_seed_searches_alike_and_another_seed_does_not():
    (first, one), (second, two), (third, three) = searching(), searching(), searching(seed=1)
    for agent in (first, second, third):
        trainer(agent.iterations(2)).fit(agent)
    assert equal(weights(first), weights(second)) and one._evaluate.calls == two._evaluate.calls
    assert not equal(weights(first), weights(third)) and one._evaluate.calls != three._evaluate.calls


# An iteration is four optimiser steps; those in the environment are the third and the sixth of six.
@pytest.mark.parametrize("step", [6, 14, 16])
def test_goes_on_from_an_iteration_in_the_proxy_bit_by_bit(tmp_path, step):
    """In the warm-up, and between evaluations, where the proxy has learnt from four of the agent's own."""
    whole, problem = searching()
    trainer(6).fit(whole)
    begun, before = searching()
    iteration = -(-step // 4)
    trainer(iteration, callbacks=[SaveAt(step, tmp_path / "begun.ckpt")]).fit(begun)
    assert begun.in_proxy(iteration - 1) and len(before.history) == 6 + 4 * (iteration > 2)
    resumed, _ = searching(before)  # the evaluations are there, as in its journal
    torch.manual_seed(17)  # nothing may depend on torch's generator
    trainer(6).fit(resumed, ckpt_path=tmp_path / "begun.ckpt", weights_only=True)
    assert equal(weights(whole), weights(resumed))
    assert [item.widths for item in before.history] == [item.widths for item in problem.history]
    assert resumed.evaluations == whole.evaluations == 8


class Forgetful(GNNRL):
    def __init__(self):
        pass


def test_a_learner_whose_class_does_not_call_its_base_is_refused():
    with pytest.raises(UserError, match=r"Forgetful has no make_policy: call super\(\).__init__\(\*\*kwargs\) in its"):
        environments_of(problem_of()).prepare(Forgetful(), {"top1": 10.0}, 1)
    with pytest.raises(UserError, match="Forgetful has no make_policy"):
        fits_agent(Forgetful())
