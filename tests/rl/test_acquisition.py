"""Agents that learn in imagined episodes and evaluate the most promising of their candidates."""

from functools import partial

import pytest
import torch

from gnnrl_lightning import Budget, trace
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.rl.acquisition import Acquisition
from gnnrl_lightning.rl.env.options import EpisodeOptions
from gnnrl_lightning.rl.env.reward import find_reward
from gnnrl_lightning.rl.environments import AGENT, Environments
from gnnrl_lightning.rl.learners import DDPG, GNNRL
from gnnrl_lightning.rl.policies import Agent, LogKeep
from gnnrl_lightning.search.baselines import starting_candidates
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.surrogate.likeness import likeness
from gnnrl_lightning.surrogate.mixture import Surrogate
from gnnrl_lightning.surrogate.prior import prior_forms
from gnnrl_lightning.surrogate.terms import Terms
from tests.rl.learners.test_gnnrl import equal, trainer, weights
from tests.rl.test_environments import LIMITS, SMALL, problem_of, started
from tests.support.fakes import Landscape, SaveAt, random_sensitivity, small_graph
from tests.support.networks_branches import Residual

pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
]

IMAGINED = {"surrogate": True, "reward": "top1"}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_round_scores_new_candidates_that_promise_most(monkeypatch):
    monkeypatch.setattr("gnnrl_lightning.search.variations.FIRST", 0)
    agent, problem = started(episode=IMAGINED)
    before = {item.widths for item in problem.history}
    graph = problem.graph
    keep = torch.rand(64, 4, generator=generator(1)).clamp(min=0.1)
    widths = torch.cat([problem.project(graph.widths * keep), torch.tensor(sorted(before))])
    agent.env.reset(len(widths))
    rewards = agent.evaluate(widths, 4, 0)
    asked = problem.history[-4:]
    assert len(rewards) == 4 and {item.proposer for item in asked} == {AGENT}
    assert len({item.widths for item in asked} - before) == 4
    # The last one is at least as good, by the posterior mean, as those of the final widths that were not taken.
    surrogate = imagination_at(problem, 4)
    pool = [row for row in {tuple(row) for row in widths.tolist()} if row not in before]
    left = [row for row in pool if row not in {item.widths for item in asked[:3]}]
    assert float(surrogate.mean(torch.tensor([asked[3].widths]))) <= float(surrogate.mean(torch.tensor(left)).min())


def imagination_at(problem, back):
    """The surrogate before the last evaluations of a problem."""
    history = {item.widths: item for item in problem.history[: len(problem.history) - back]}.values()
    reward = find_reward("top1", problem.objective)
    widths = torch.tensor([item.widths for item in history])
    rewards = torch.tensor([reward(item) for item in history], dtype=torch.float64)
    terms = Terms(problem.graph.widths, problem.sensitivity.of_groups, likeness(problem.graph))
    return Surrogate(terms, prior_forms(terms), widths, -rewards)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_functions_keep_the_share_of_their_deviations_that_the_episodes_say(share):
    agent, problem = started(episode=IMAGINED | {"exploration": share})
    widths = torch.tensor(sorted({item.widths for item in problem.history}))
    surrogate = imagination_at(problem, 0)
    expected = surrogate.draw(5, generator(), share)(widths)
    torch.testing.assert_close(-agent.env.imagined.functions(5, generator())(widths), expected)


def test_known_candidates_are_replaced_by_variations_of_the_best():
    agent, problem = started(episode=IMAGINED)
    before = {item.widths for item in problem.history}
    agent.env.reset(len(before))
    start = agent.env.imagined.start.long()  # episodes that do not move
    rewards = agent.evaluate(start, 4, 0)
    assert agent.evaluate.figures["search/new"] == agent.evaluate.figures["search/imagined"] == 0
    assert len(rewards) == 4 and len({item.widths for item in problem.history} - before) == 4


def searching(problem=None, seed=0, learner=GNNRL, **settings):
    given = {"episodes_per_iteration": 4, "proxy_warmup": 2, "proxy_between": 1, "proxy_episodes": 16, "seed": seed}
    ppo = {"make_policy": partial(SMALL, distribution=LogKeep), "epochs": 2, "minibatches": 2, "target_kl": None}
    make = ppo if learner is GNNRL else {}
    return started(learner, problem, episode=IMAGINED, **given | make | settings)


@pytest.mark.parametrize(("target", "varied"), [(0.3, 4), (0.02, 0)])
def test_a_search_first_varies_the_widths_of_the_best_candidate(target, varied):
    """They have its set of groups, and later ones have others. One without any group that may go has no variations."""
    graph = trace(Residual(), torch.zeros(1, 3, 10, 10))
    limits = Budget(macs=0.3, min_width=0).on(graph)
    evaluate = Landscape(graph, torch.where(limits.allowed.removable, target, 0.9))
    starting = starting_candidates(graph, limits)
    agent, problem = searching(SearchProblem(graph, limits, evaluate, 80, starting, lambda: random_sensitivity(graph)))
    wanted = torch.full((1, len(graph.groups)), 1.0) * graph.widths * evaluate.target
    problem.ask(problem.project(wanted)[0], "test")
    best = torch.tensor(problem.ranked()[0].widths)
    trainer(agent.iterations(4)).fit(agent)
    own = torch.tensor([item.widths for item in problem.history if item.proposer == AGENT])
    assert len(own) == len(own.unique(dim=0)) == 16
    assert torch.equal(own[:varied] == 0, (best == 0).expand(varied, -1))
    assert len((own[varied:] == 0).unique(dim=0)) > 1


def test_a_search_never_repeats_a_candidate_and_counts_what_it_scores():
    agent, problem = searching(problem_of(evaluations=3 + 6 + 8 * 4 + 2))
    trainer(agent.iterations(9)).fit(agent)  # the last iteration has two candidates
    assert problem.left == 0 and int(agent.evaluations) == 34
    own = [item.widths for item in problem.history if item.proposer == AGENT]
    assert len(own) == 34 == len({*own} - {item.widths for item in problem.history[:6]})


@pytest.mark.parametrize("seed", range(2))
def test_the_optimum_is_found(seed):
    """Within a point; the best starting candidate is several points below it."""
    agent, problem = searching(problem_of(evaluations=3 + 6 + 10 * 4), seed, proxy_episodes=64)
    trainer(agent.iterations(10)).fit(agent)
    best = max(item.top1 for item in problem.history)
    target = float(problem._evaluate.top1(problem.project(problem.graph.widths * problem._evaluate.target)))
    assert best > target - 1 and best > max(item.top1 for item in problem.history[:6]) + 1


def test_the_same_seed_searches_alike_and_another_seed_does_not():
    def history(seed):
        agent, problem = searching(seed=seed)
        trainer(agent.iterations(2)).fit(agent)
        return [item.widths for item in problem.history]

    assert history(0) == history(0) != history(1)


# An iteration is four optimiser steps; rounds are in the third and the fifth of six.
@pytest.mark.parametrize("step", [6, 10, 14])
def test_resumes_bit_by_bit(tmp_path, step):
    """In the warm-up, in the iteration of a round, which is over, and between rounds."""
    whole, problem = searching()
    trainer(6).fit(whole)
    begun, before = searching()
    trainer(-(-step // 4), callbacks=[SaveAt(step, tmp_path / "begun.ckpt")]).fit(begun)
    assert len(before.history) == 6 + 4 * (step > 8)
    resumed, _ = searching(before)
    torch.manual_seed(17)
    trainer(6).fit(resumed, ckpt_path=tmp_path / "begun.ckpt", weights_only=True)
    assert equal(weights(whole), weights(resumed))
    assert [item.widths for item in before.history] == [item.widths for item in problem.history]
    assert resumed.evaluations == whole.evaluations == 8


def test_several_steps_and_a_range_of_budgets():
    episode = {**IMAGINED, "max_steps": 3, "macs_range": (0.5, 0.9)}
    agent, problem = started(GNNRL, episode=episode, episodes_per_iteration=4, proxy_warmup=1, proxy_between=1)
    trainer(agent.iterations(2)).fit(agent)
    shares = [item.widths for item in problem.history if item.proposer == AGENT]
    costs = problem.graph.cost.macs(torch.tensor(shares)) / problem.limits.dense["macs"]
    assert len(shares) == 8 and float(costs.max()) > 0.55 and float(costs.max()) <= 0.9


def test_ddpg_learns_in_imagined_episodes_too():
    agent, problem = searching(learner=DDPG)
    trainer(agent.iterations(2)).fit(agent)
    assert len({item.widths for item in problem.history if item.proposer == AGENT}) == 8


def test_a_policy_is_made_before_anything_is_known():
    environments = Environments(small_graph(), LIMITS, EpisodeOptions(**IMAGINED), "outputs", problem_of().objective)
    env = environments.make(None)
    state = env.graphs(env.reset(2)[0])
    assert state.x.shape[1] == env.state_dim and Agent(env.state_dim, env.action_dim).act(state)[0].isfinite().all()
    assert isinstance(started(episode=IMAGINED)[0].evaluate, Acquisition)


@pytest.mark.parametrize("missing", [{"proposal": None}, {"sensitivity": False}])
def test_imagined_episodes_need_a_sensitivity_and_an_allocation(missing):
    with pytest.raises(UserError, match="needs the sensitivity"):
        EpisodeOptions(**IMAGINED, **missing)
