"""What the agent may spend, what its episodes are, and what it reads before and learns in between."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.result import best_of, within
from gnnrl_lightning.job.policy_search import AGENT, SearchOptions, connect, environment, evaluated
from gnnrl_lightning.rl.encoders import GCN
from gnnrl_lightning.rl.env.reward import find_reward
from gnnrl_lightning.rl.learners import DDPG, GNNRL
from gnnrl_lightning.rl.policies import Agent
from gnnrl_lightning.rl.state.builder import NODE_DIM
from gnnrl_lightning.search.baselines import FROM_SENSITIVITY, STARTING, starting_candidates
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
    """100 images of the search split; a table of 250, worth three evaluations."""
    graph, target = small_graph(), torch.tensor(target)
    make = (lambda: random_sensitivity(graph, images=250)) if table else None
    return SearchProblem(
        graph, limits, Landscape(graph, target), evaluations, starting_candidates(graph, limits), make, 100
    )


def started(search, learner=GNNRL, problem=None, **settings):
    """An agent that is about to begin, and what it works on."""
    problem = problem or problem_of()
    if not problem.history:
        problem.start(from_sensitivity=search.table is not None)
    agent = learner(**settings)
    connect(agent, problem, search)
    return agent, problem


@pytest.mark.parametrize(
    ("search", "evaluation", "spent"),
    [
        # Four groups, four ratios, all of which narrow: 64 * (1 + 16) = 1088 images, and 64 for the moments. Refit
        # records the dense network with 64 more. An evaluation takes 100, and the 64 of the calibration where the
        # repair reads them: 1216 / 164 = 7.4, 1152 / 164 = 7.02, 1152 / 100 = 11.5.
        ({}, 164, 8 + 6),
        ({"repair": "batch_norm"}, 164, 8 + 6),
        ({"repair": "reconstruction"}, 100, 12 + 6),
        ({"repair": "none"}, 100, 12 + 6),
        # Five steps of 30 images, too: 1152 / 250 = 4.6, 1216 / 314 = 3.9.
        ({"repair": "none", "finetune_steps": 5}, 250, 5 + 6),
        ({"finetune_steps": 5}, 314, 4 + 6),
        # Statistics of the dense network alone: 64 images, or 128 with those of refit; a criterion may read 64 more.
        ({"table": "reconstruction"}, 164, 1 + 6),
        ({"table": "reconstruction", "importance": "fisher"}, 164, 2 + 6),
        ({"table": "reconstruction", "repair": "reconstruction"}, 100, 1 + 6),
        ({"table": None}, 164, 1 + 4),
        ({"table": None, "repair": "reconstruction"}, 100, 1 + 4),
        ({"table": None, "repair": "batch_norm"}, 164, 4),
        # 300 * 17 = 5100 images, and 300 or 600 more, of 400, or 100, an evaluation.
        ({"calibration_images": 300}, 400, 15 + 6),
        ({"calibration_images": 300, "repair": "reconstruction"}, 100, 54 + 6),
    ],
)
@pytest.mark.parametrize("episodes", [1, 8])
def test_iterations_by_hand(search, evaluation, spent, episodes):
    search = {"calibration_images": 64, "repair": "refit"} | search
    assert SearchOptions(**search).evaluation_images(100, batch_size=30) == evaluation

    def iterations(evaluations):
        return SearchOptions(evaluations=evaluations, **search).iterations(small_graph(), evaluation, episodes)

    assert iterations(spent + episodes) == 1
    assert iterations(spent + 3 * episodes - 1) == 2
    assert iterations(spent + 3 * episodes) == 3
    with pytest.raises(UserError) as error:
        iterations(spent + episodes - 1)
    starting = 4 if search.get("table", "") is None else 6
    assert str(error.value) == (
        f"search.evaluations is {spent + episodes - 1}: at least {spent + episodes} are needed, {spent} for the "
        f"{starting} starting candidates, calibration and sensitivity, and one iteration of {episodes} episodes"
    )


def test_groups_that_a_ratio_cannot_narrow_take_no_images():
    """Of one channel nothing can go, of two 0.1, 0.3 and 0.6 leave one, 0.85 two: 50 * (1 + 3) images, and 50 * 2."""
    graph = SimpleNamespace(widths=torch.tensor([1, 2]))
    search = SearchOptions(evaluations=6 + 6 + 1, calibration_images=50, repair="refit")
    assert search.iterations(graph, 50, 1) == 1
    with pytest.raises(UserError, match=r"search.evaluations is 12: at least 13"):
        SearchOptions(evaluations=6 + 6, calibration_images=50, repair="refit").iterations(graph, 50, 1)


def test_candidates_race_unless_each_has_a_budget_of_its_own():
    assert SearchOptions(racing_error=0.1).drop_error == 0.1
    assert SearchOptions(racing=False).drop_error is None
    assert SearchOptions(macs_range=(0.3, 0.7)).drop_error is None


def test_starting_candidates_are_those_of_the_search():
    assert SearchOptions(table=None).starting == len(STARTING) == 4
    assert SearchOptions().starting == len(STARTING) + len(FROM_SENSITIVITY) == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward": "luck"}, r"search.reward is 'luck': expected one of top1, cross_entropy, divergence, or package"),
        ({"finetune_steps": -1}, r"search.finetune_steps is -1: expected at least 0"),
        ({"repair": "glue"}, r"search.repair is 'glue': expected one of none, predicted_batch_norm, batch_norm"),
        ({"precision": "8"}, r"search.precision is '8': expected one of 32, bf16"),
        ({"racing_error": 0.0}, r"search.racing_error is 0.0: expected a probability up to 0.5, and not 0"),
        ({"racing_error": 0.6}, r"search.racing_error is 0.6: expected a probability up to 0.5"),
        ({"batch_size": 0}, r"search.batch_size is 0: expected at least 1, or null"),
        ({"table": "round"}, r"search.table is 'round': expected one of outputs, reconstruction, or an import path"),
    ],
)
def test_unknown_names_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        SearchOptions(**settings)


@pytest.mark.parametrize("learner", [GNNRL, DDPG])
@pytest.mark.parametrize("max_steps", [1, 3])
def test_environment_and_proxy_have_the_same_states(learner, max_steps):
    """A policy made for one, before there was a table, acts in the other."""
    search = SearchOptions(max_steps=max_steps)
    before = environment(small_graph(), LIMITS, search, score=None)
    agent, problem = started(search, learner)
    states = NODE_DIM + len(RATIOS)
    assert [env.state_dim for env in (before, agent.env, agent.proxy)] == [states] * 3
    assert [env.action_dim for env in (before, agent.env, agent.proxy)] == [4] * 3
    assert agent.env.max_steps == agent.proxy.max_steps == max_steps
    assert agent.env.initial_action == agent.proxy.initial_action == before.initial_action
    assert problem.spent == 3 + 6 and problem.reads_sensitivity
    own, estimated = (env.graphs(env.reset(2)[0]) for env in (agent.env, agent.proxy))
    assert torch.equal(own.x, estimated.x) and torch.equal(own.edge_attr, estimated.edge_attr)
    # The table's statistics are in the states, where there were zeros before.
    assert not torch.equal(own.x, before.graphs(before.reset(2)[0]).x)
    assert torch.equal(own.x[:, :NODE_DIM], before.graphs(before.reset(2)[0]).x[:, :NODE_DIM])


def test_episodes_in_the_proxy_cost_nothing_and_those_in_the_environment_one_each():
    agent, problem = started(SearchOptions())
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
    widths, rewards = evaluated(history, find_reward(reward))
    assert widths.tolist() == [[4, 2], [3, 3]] and widths.dtype == torch.int64
    torch.testing.assert_close(rewards, torch.tensor(expected, dtype=torch.float64))


def test_before_anything_is_scored_there_is_nothing_to_learn_from():
    graph, table = small_graph(), random_sensitivity(small_graph())
    estimate = Proxy(table.of_groups, lambda: evaluated([], find_reward("top1")))
    widths = graph.widths[None] // 2
    torch.testing.assert_close(estimate(widths), -table(widths).log().float())


def test_the_proxy_learns_from_all_that_was_evaluated():
    """Starting candidates first, then the agent's own: its estimates come to rank as the evaluations do."""
    agent, problem = started(SearchOptions())
    graph = problem.graph
    rows = problem.project(graph.widths * torch.rand(64, 4, generator=torch.Generator().manual_seed(1)).clamp(min=0.1))
    truth = problem._evaluate.top1(rows) / 100 - 1

    def left_over():
        estimates = agent.proxy.score(rows).double()
        return float((estimates - truth).square().mean())

    known = problem.history
    expected = Proxy(problem.sensitivity.of_groups, lambda: evaluated(known[:6], find_reward("top1")))
    torch.testing.assert_close(agent.proxy.score(rows), expected(rows))
    first = left_over()
    agent.env.reset(40)
    agent.env.step(torch.rand(160, generator=torch.Generator().manual_seed(2)))
    assert len(problem.history) == 46
    assert left_over() < first / 2


def test_a_range_of_budgets_lets_the_agent_evaluate_beyond_its_own():
    search = SearchOptions(macs_range=(0.3, 0.8))
    agent, problem = started(search, problem=problem_of(target=(1.0, 1.0, 1.0, 1.0)))
    graph, dense = problem.graph, int(problem.graph.cost.macs(problem.graph.widths))
    for env in (agent.env, agent.proxy):
        env.reset(60, torch.Generator().manual_seed(0))
        env.step(torch.full((240,), 0.02))
        ratios = graph.cost.macs(env.widths) / dense
        assert 0.25 < ratios.min() < 0.4 and 0.7 < ratios.max() <= 0.8
    over = [item for item in problem.history if not within(LIMITS, item)]
    assert len(over) > 20 and {item.widths for item in over} <= {tuple(row) for row in agent.env.widths.tolist()}
    # The best of all is beyond the budget; what is delivered is the best of those within.
    best = best_of([item for item in problem.history if within(LIMITS, item)])
    assert best_of(problem.history).top1 > best.top1 and best_of(problem.history) in over
    assert int(graph.cost.macs(torch.tensor(best.widths))) <= dense / 2
    with pytest.raises(ValueError, match="does not meet the budget"):
        problem.ask(graph.widths, AGENT)


def test_without_a_range_every_candidate_meets_the_budget():
    agent, problem = started(SearchOptions())
    agent.env.reset(20, torch.Generator().manual_seed(0))
    agent.env.step(torch.full((80,), 0.02))
    assert all(within(LIMITS, item) for item in problem.history)
    above = Budget(macs=0.6).on(problem.graph).project(problem.graph.widths)
    with pytest.raises(ValueError, match="does not meet the budget"):
        problem.ask(above, AGENT)


def test_a_range_beside_a_budget_of_parameters():
    """The range is of MACs; the limit of parameters stays what it is for all."""
    limits = Budget(params=0.5).on(small_graph())
    agent, problem = started(SearchOptions(macs_range=(0.2, 0.9)), problem=problem_of(limits=limits))
    agent.env.reset(30, torch.Generator().manual_seed(0))
    agent.env.step(torch.full((120,), 0.02))
    assert all(within(limits, item) for item in problem.history)
    assert len({item.widths for item in problem.history}) > 10


def test_with_a_penalty_only_what_is_within_the_budget_is_scored():
    """In both environments: dense widths, and half of each, which have about a quarter of the MACs."""
    agent, problem = started(SearchOptions(penalty=-100.0))
    actions = torch.tensor([0.0] * 4 + [0.5] * 4)
    for env in (agent.env, agent.proxy):
        env.reset(2)
        _, rewards, done = env.step(actions)
        assert done.all() and rewards[0] == -100 and rewards[1] > -1
        assert torch.equal(env.widths, torch.stack([problem.graph.widths, problem.graph.widths // 2]))
    assert problem.spent == 9 + 1 and problem.history[-1].widths == tuple((problem.graph.widths // 2).tolist())


def test_no_table_no_proxy_no_statistics():
    search = SearchOptions(table=None)
    agent, problem = started(search)
    assert agent.proxy is None and agent.iterations(5) == 5
    assert agent.env.state_dim == NODE_DIM == environment(small_graph(), LIMITS, search, score=None).state_dim
    assert not problem.reads_sensitivity and problem.spent == 4
    # Also where there is one that others may read, and where the agent had a proxy before.
    connect(agent, problem, SearchOptions())
    assert agent.proxy is not None
    connect(agent, problem, search)
    assert agent.proxy is None and agent.env.state_dim == NODE_DIM


def test_a_table_that_is_missing_or_too_dear_is_said():
    with pytest.raises(NotApplicable, match="reads a sensitivity, and there is none"):
        connect(GNNRL(), problem_of(table=False), SearchOptions())
    with pytest.raises(NotApplicable, match="reads 250 images, 100 of which are worth an evaluation; 2 of 2 "):
        connect(GNNRL(), problem_of(evaluations=2), SearchOptions())


def searching(problem=None, seed=0):
    """Two iterations of 16 episodes in the proxy, then one of 4 in the environment and two in the proxy, and so on."""
    settings = {"proxy_warmup": 2, "proxy_between": 2, "proxy_episodes": 16, "episodes_per_iteration": 4}
    steps = {"epochs": 2, "minibatches": 2, "target_kl": None}
    return started(SearchOptions(), problem=problem, actor_critic=SMALL, seed=seed, **settings, **steps)


def test_two_fidelities_spend_what_was_left_and_no_more():
    """Three for the table, six for the starting candidates, and three iterations of four of the 13 that are left."""
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
    resumed, _ = searching(before)  # what was evaluated is there, as in its journal
    torch.manual_seed(17)  # nothing may depend on torch's generator
    trainer(6).fit(resumed, ckpt_path=tmp_path / "begun.ckpt", weights_only=True)
    assert equal(weights(whole), weights(resumed))
    assert [item.widths for item in before.history] == [item.widths for item in problem.history]
    assert resumed.evaluations == whole.evaluations == 8
