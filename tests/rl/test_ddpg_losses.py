import math

import pytest
import torch
from torch import nn

from gnnrl_lightning.rl import ddpg_losses as ddpg


def test_q_target_by_hand():
    rewards, ahead = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 10.0, float("nan")])
    done = torch.tensor([False, False, True])
    # 1 + 0.5 * 10, 2 + 0.5 * 10, and an ended episode's next state does not matter.
    assert ddpg.q_target(rewards, ahead, done, 0.5).tolist() == [6.0, 7.0, 3.0]


def test_losses_by_hand():
    values, targets = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 1.0])
    assert ddpg.critic_loss(values, targets).item() == (1 + 4) / 2 / 2
    assert ddpg.actor_loss(values).item() == -2


def test_gradients_point_to_a_known_optimum():
    """Q(a) = -(a - 0.7)^2: the critic's loss pulls values to targets, the actor's pulls actions to 0.7."""
    action = torch.tensor([0.2, 0.9], requires_grad=True)
    ddpg.actor_loss(-(action - 0.7).square()).backward()
    # d loss / d a = (a - 0.7) for a mean over two: -0.5 and 0.2, so that a descent step goes up, and down.
    torch.testing.assert_close(action.grad, torch.tensor([-0.5, 0.2]))
    value = torch.tensor([0.0, 0.0], requires_grad=True)
    ddpg.critic_loss(value, torch.tensor([1.0, -3.0])).backward()
    assert value.grad.tolist() == [-0.5, 1.5]


def test_saturation_loss_by_hand():
    # Logits 0, 1, -3 and 4 exceed a margin of 2 by 0, 0, 1 and 2.
    logits = torch.tensor([0.0, 1.0, -3.0, 4.0], requires_grad=True)
    loss = ddpg.saturation_loss(logits.sigmoid(), 2.0)
    loss.backward()
    assert loss.item() == pytest.approx((1 + 4) / 4, rel=1e-4)
    torch.testing.assert_close(logits.grad, torch.tensor([0, 0, -0.5, 1.0]), atol=1e-4, rtol=0)
    assert ddpg.saturation_loss(torch.tensor([0.0, 1.0])).isfinite()


def test_soft_update_by_hand():
    slow, fast = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    nn.init.constant_(slow.weight, 1.0)
    nn.init.constant_(fast.weight, 3.0)
    fast.running_mean.fill_(5.0)
    fast(torch.ones(2, 1))
    ddpg.soft_update(slow, fast, 0.25)
    assert slow.weight.item() == 0.25 * 3 + 0.75 * 1
    assert fast.weight.item() == 3
    assert torch.equal(slow.running_mean, fast.running_mean) and slow.num_batches_tracked == 1
    ddpg.soft_update(slow, fast, 1.0)
    assert slow.weight.item() == 3


@pytest.mark.parametrize("mean, spread", [(0.5, 0.2), (0.05, 0.3), (1.0, 0.5), (0.3, 0.01), (0.0, 1e-3)])
def test_noise_is_the_truncated_normal(mean, spread):
    draws = ddpg.explore(torch.full((40_000,), mean), spread)
    assert draws.min() >= 0 and draws.max() <= 1
    # The textbook's mean of a truncated normal: mu + s (phi(l) - phi(u)) / (Phi(u) - Phi(l)).
    low, high = -mean / spread, (1 - mean) / spread
    phi = [math.exp(-z * z / 2) / math.sqrt(2 * math.pi) for z in (low, high)]
    mass = (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2
    expected = mean + spread * (phi[0] - phi[1]) / mass
    assert draws.mean().item() == pytest.approx(expected, abs=4 * spread / 200)


def test_noise_at_the_edges_is_finite():
    edges = torch.tensor([0.0, 1.0, 1e-7, 1 - 1e-7]).repeat(1000)
    for spread in (1e-4, 0.02, 5.0):
        assert ddpg.explore(edges, spread).isfinite().all()


def test_spread_decays_to_its_smallest():
    spreads = [ddpg.decayed_spread(0.4, 0.5, 0.06, iteration) for iteration in range(5)]
    assert spreads == pytest.approx([0.4, 0.2, 0.1, 0.06, 0.06])


# Three episodes of one, two and three steps; values after their ends are ignored.
ALIVE = torch.tensor([[True, True, True], [False, True, True], [False, False, True]])
REWARDS = torch.tensor([[4.0, 0.0, 1.0], [9.0, 6.0, 0.0], [9.0, 9.0, 2.0]])


def test_credit_at_the_end_leaves_rewards_where_they_come():
    rewards, shares = ddpg.CREDITS["end"](REWARDS, ALIVE)
    assert rewards.T.tolist() == [[4, 0, 0], [0, 6, 0], [1, 0, 2]]
    assert shares.T.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_even_credit_spreads_the_sum():
    rewards, shares = ddpg.CREDITS["even"](REWARDS, ALIVE)
    torch.testing.assert_close(rewards.T, torch.tensor([[4.0, 0, 0], [3, 3, 0], [1, 1, 1]]))
    torch.testing.assert_close(shares.T, torch.tensor([[1, 0, 0], [1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3]]))


@pytest.mark.parametrize("credit", list(ddpg.CREDITS))
def test_standardised_episodes_have_mean_zero_and_spread_one(credit):
    rewards, shares = ddpg.CREDITS[credit](REWARDS, ALIVE)
    totals = rewards.sum(0)
    mean, spread = totals.mean(), totals.std(correction=0)
    episodes = ddpg.standardise(rewards.flatten(), shares.flatten(), mean, spread).view(3, 3).sum(0)
    torch.testing.assert_close(episodes, (totals - mean) / spread, atol=1e-5, rtol=0)


def test_equal_rewards_are_standardised_to_zero():
    one = torch.ones(3)
    assert ddpg.standardise(-0.3 * one, one, torch.tensor(-0.3), torch.tensor(0.0)).abs().max() < 0.1
