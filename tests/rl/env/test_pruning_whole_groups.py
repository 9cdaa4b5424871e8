"""Episodes in which groups may go entirely."""

import pytest
import torch

from gnnrl_lightning import Budget, trace
from gnnrl_lightning.rl.env import VectorPruningEnv
from gnnrl_lightning.rl.env.imagination import Imagination
from gnnrl_lightning.rl.policies import ActorCritic, Agent, Beta
from gnnrl_lightning.rl.policies.log_keep import LogKeep
from gnnrl_lightning.surrogate.mixture import Surrogate
from gnnrl_lightning.surrogate.prior import flat_prior
from gnnrl_lightning.surrogate.terms import Terms
from tests.support.fakes import random_sensitivity
from tests.support.networks_branches import Residual


@pytest.fixture(scope="module")
def graph():
    return trace(Residual(), torch.zeros(1, 3, 10, 10))


@pytest.fixture(scope="module")
def limits(graph):
    return Budget(macs=0.6, min_width=0).on(graph)


def number_of(graph, name):
    return [group.name for group in graph.groups].index(name)


@pytest.mark.parametrize("max_steps", [1, 3])
def test_an_action_removes_groups_that_may_go(graph, limits, max_steps):
    env = VectorPruningEnv(graph, limits, None, max_steps=max_steps, max_ratio_per_step=1.0)
    env.reset(1)
    actions = torch.zeros(len(graph.widths))
    actions[[number_of(graph, "block.0"), number_of(graph, "stem")]] = 1.0
    done, observations = torch.tensor([False]), None
    while not done.all():
        observations, _, done = env.step(actions)
    assert env.widths[0, number_of(graph, "block.0")] == 0 and env.widths[0, number_of(graph, "stem")] > 0
    state = env.graphs(observations)
    assert state.x.isfinite().all() and state.edge_attr.isfinite().all()


@pytest.fixture
def proposing(graph, limits):
    """An environment whose proposals lack a block, the proposed widths, and an untrained policy."""
    widths = graph.widths.clone()
    widths[number_of(graph, "block.0")] = 0
    proposed = limits.project(widths)
    env = VectorPruningEnv(
        graph, limits, None, max_steps=1, proposals=lambda macs: proposed.repeat(len(macs), 1).float()
    )
    torch.manual_seed(0)
    policy = Agent(env.state_dim, env.action_dim, head="node")
    policy.centre_on(0.5, 0.1, 0.1)
    return env, proposed, policy


def test_a_proposal_without_a_group_is_an_action_that_removes_it(proposing):
    """The mean of the policy's distribution is finite there, and leads back to the proposal."""
    env, proposed, _ = proposing
    observations, _ = env.reset(2)
    state = env.graphs(observations)
    location = LogKeep.location_of(state.proposal)
    spread = LogKeep.spread_around(state.proposal, torch.tensor(0.05), state.proposal_step)
    assert location.isfinite().all() and spread.isfinite().all()
    env.step(LogKeep.squash(location))
    assert torch.equal(env.widths, proposed.repeat(2, 1))


def test_an_untrained_policy_starts_from_a_proposal_without_a_group(proposing):
    env, proposed, policy = proposing
    observations, _ = env.reset(2)
    env.step(policy.squash(policy.mode(env.graphs(observations))))
    assert torch.equal(env.widths, proposed.repeat(2, 1))


def test_an_untrained_policy_removes_other_groups_and_takes_one_back(proposing, graph, limits):
    env, _, policy = proposing
    observations, _ = env.reset(400)
    state = env.graphs(observations)
    raw, log_prob = policy.act(state)
    env.step(policy.squash(raw))
    own, others = number_of(graph, "block.0"), limits.allowed.removable.clone()
    assert 0.05 < float((env.widths[:, own] > 0).double().mean()) < 0.3
    assert int(env.widths[env.widths[:, own] > 0, own].median()) > 1  # not one channel more than none
    others[own] = False
    gone = env.widths[:, others] == 0
    assert bool(gone.any()) and float(gone.double().mean()) < 0.3
    assert bool((env.widths[:, ~limits.allowed.removable] > 0).all())
    again, _, _ = policy.evaluate(state, raw)
    torch.testing.assert_close(again, log_prob)


def test_policies_of_two_outputs_keep_the_odds_of_the_proposal(proposing):
    env, _, policy = proposing
    state = env.graphs(env.reset(2)[0])
    two = ActorCritic(Agent(env.state_dim, env.action_dim, head="node", distribution=Beta).actor, policy.critic)
    odds = two.distribution(state)._odds
    torch.testing.assert_close(odds, state.proposal_odds)
    assert policy.distribution(state)._odds.shape == odds.shape


def test_the_policy_sees_what_the_last_channel_is_worth(graph, limits):
    """By the posterior mean; one channel is narrowed to none, and none is widened to one."""
    terms = Terms(graph.widths, random_sensitivity(graph).of_groups)
    nothing = torch.zeros(0, len(graph.widths), dtype=torch.int64), torch.zeros(0)
    surrogate = Surrogate(terms, [flat_prior(terms)], *nothing)
    imagination = Imagination(graph, limits, lambda: surrogate, lambda: nothing, exploration=0.0)
    block, narrow, stem = (number_of(graph, name) for name in ("block.0", "narrow", "stem"))
    start = graph.widths.clone()
    start[[block, narrow, stem]] = torch.tensor([1, 0, 1])
    absolute = {"macs": torch.full((1,), limits.limits["macs"], dtype=torch.float64)}
    _, slopes = imagination.begin(start[None], absolute, torch.Generator())
    assert slopes.isfinite().all()
    assert slopes[0, block, 0] != 0 and slopes[0, stem, 0] == 0  # narrower: the stem has to stay
    assert slopes[0, narrow, 0] == 0 and slopes[0, narrow, 1] != 0  # there is nothing narrower than none
