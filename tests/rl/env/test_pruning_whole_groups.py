"""Episodes in which groups may go entirely."""

import pytest
import torch

from gnnrl_lightning import Budget, trace
from gnnrl_lightning.rl.env import VectorPruningEnv
from gnnrl_lightning.rl.env.imagination import Imagination
from gnnrl_lightning.rl.policies.log_keep import LogKeep
from gnnrl_lightning.surrogate.model import Surrogate, flat_prior
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


def test_a_proposal_without_a_group_is_an_action_that_removes_it(graph, limits):
    """The mean of the policy's distribution is finite there, and leads back to the proposal."""
    widths = graph.widths.clone()
    widths[number_of(graph, "block.0")] = 0
    proposed = limits.project(widths)
    env = VectorPruningEnv(
        graph, limits, None, max_steps=1, proposals=lambda macs: proposed.repeat(len(macs), 1).float()
    )
    observations, _ = env.reset(2)
    state = env.graphs(observations)
    location = LogKeep.location_of(state.proposal)
    spread = LogKeep.spread_around(state.proposal, torch.tensor(0.05), state.proposal_step)
    assert location.isfinite().all() and spread.isfinite().all()
    env.step(LogKeep.squash(location))
    assert torch.equal(env.widths, proposed.repeat(2, 1))


def test_the_policy_sees_what_the_last_channel_is_worth(graph, limits):
    """By the posterior mean; one channel is narrowed to none, and none is widened to one."""
    terms = Terms(graph, random_sensitivity(graph).of_groups)
    surrogate = Surrogate(
        terms, flat_prior(terms), torch.zeros(0, len(graph.widths), dtype=torch.int64), torch.zeros(0)
    )
    imagination = Imagination(graph, limits, lambda: surrogate, lambda: (torch.zeros(0, 0), torch.zeros(0)), mean=True)
    block, narrow, stem = (number_of(graph, name) for name in ("block.0", "narrow", "stem"))
    start = graph.widths.clone()
    start[[block, narrow, stem]] = torch.tensor([1, 0, 1])
    absolute = {"macs": torch.full((1,), limits.limits["macs"], dtype=torch.float64)}
    _, slopes = imagination.begin(start[None], absolute, torch.Generator())
    assert slopes.isfinite().all()
    assert slopes[0, block, 0] != 0 and slopes[0, stem, 0] == 0  # narrower: the stem has to stay
    assert slopes[0, narrow, 0] == 0 and slopes[0, narrow, 1] != 0  # there is nothing narrower than none
