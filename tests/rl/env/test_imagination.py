"""Imagined episodes: where they start, what a policy sees of their functions, and their rewards."""

import math

import torch

from gnnrl_lightning.rl.env.imagination import SLOPES, STEP, Imagination
from gnnrl_lightning.surrogate.mixture import Surrogate
from gnnrl_lightning.surrogate.prior import flat_prior
from gnnrl_lightning.surrogate.terms import Terms
from tests.rl.test_environments import LIMITS
from tests.support.fakes import random_sensitivity, small_graph


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def imagination_of(widths=None, rewards=None, exploration=1.0):
    graph = small_graph()
    terms = Terms(graph.widths, random_sensitivity(graph).of_groups)
    known = torch.zeros(0, 4, dtype=torch.int64) if widths is None else widths
    scores = torch.zeros(0) if rewards is None else rewards
    surrogate = Surrogate(terms, [flat_prior(terms)], known, -scores)
    return Imagination(graph, LIMITS, lambda: surrogate, lambda: (known, scores), exploration)


def begin(imagination, proposals, seed=0):
    limits = {"macs": torch.full((len(proposals),), LIMITS.limits["macs"], dtype=torch.float64)}
    return imagination.begin(proposals, limits, generator(seed))


def test_rewards_are_relative_to_the_proposal_and_those_of_the_episodes_function():
    proposals = LIMITS.project(small_graph().widths).repeat(3, 1)
    imagination = imagination_of()
    start, slopes = begin(imagination, proposals)
    assert torch.equal(start, proposals) and slopes.shape == (3, 4, SLOPES)
    assert imagination.rewards(proposals, torch.arange(3)).tolist() == [0.0, 0.0, 0.0]
    other = LIMITS.project(small_graph().widths * torch.tensor([0.3, 1.0, 1.0, 1.0])).repeat(3, 1)
    rewards = imagination.rewards(other, torch.arange(3))
    assert len(set(rewards.tolist())) == 3  # three functions
    assert torch.equal(imagination.rewards(other[1:2], torch.tensor([1])), rewards[1:2])
    mean = imagination_of(exploration=0.0)
    begin(mean, proposals)
    assert len(set(mean.rewards(other, torch.arange(3)).tolist())) == 1


def test_the_policy_sees_the_slopes_of_the_function():
    """By the posterior mean, narrowing and widening by a quarter of a log keep ratio, over 3 root mean squares."""
    proposals = torch.tensor([[12, 16, 16, 24]])
    imagination = imagination_of(exploration=0.0)
    _, seen = begin(imagination, proposals)
    slopes = torch.zeros(4, 2, dtype=torch.float64)
    level = float(imagination.surrogate.mean(proposals))
    for group in range(4):
        for side, sign in enumerate((-1, 1)):
            changed = proposals.clone()
            width = round(int(proposals[0, group]) * math.exp(sign * STEP))
            changed[0, group] = min(width, int(small_graph().widths[group]))
            step = math.log(int(changed[0, group]) / int(proposals[0, group]))
            slopes[group, side] = -(float(imagination.surrogate.mean(changed)) - level) / step
    expected = slopes / (3 * slopes.square().mean().sqrt())
    torch.testing.assert_close(seen[0].double(), expected.clamp(-1, 1), atol=1e-5, rtol=1e-4)


def test_episodes_start_from_the_best_candidates_within_their_limits():
    graph = small_graph()
    keep = torch.rand(30, 4, generator=generator()).clamp(min=0.2)
    widths = torch.cat([LIMITS.project(graph.widths * keep).unique(dim=0), graph.widths[None]])
    rewards = torch.arange(len(widths), dtype=torch.float64)  # the dense network, over the budget, is the best
    imagination = imagination_of(widths, rewards)
    start, _ = begin(imagination, LIMITS.project(graph.widths).repeat(64, 1))
    assert {tuple(row) for row in start.tolist()} == {tuple(row) for row in widths[-7:-1].tolist()}
