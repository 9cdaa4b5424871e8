import pytest
import torch

from gnnrl_lightning.rl import ppo_losses as ppo


def test_gae_by_hand():
    # Two steps, gamma 0.5, lambda 0.5: d1 = 2 - 1 = 1; d0 = 1 + 0.5 * 1 - 3 = -1.5; A0 = d0 + 0.25 * d1 = -1.25.
    rewards, values = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [1.0]])
    done = torch.tensor([[False], [True]])
    advantages = ppo.gae(rewards, values, done, 0.5, 0.5)
    assert advantages.flatten().tolist() == [-1.25, 1.0]


def test_gae_with_lambda_one_is_the_return_minus_the_value():
    rewards, values = torch.randn(4, 3), torch.randn(4, 3)
    done = torch.zeros(4, 3, dtype=torch.bool)
    done[-1] = True
    returns = torch.stack([sum(0.9**k * rewards[t + k] for k in range(4 - t)) for t in range(4)])
    torch.testing.assert_close(ppo.gae(rewards, values, done, 0.9, 1.0), returns - values)


@pytest.mark.parametrize("gamma, lam", [(1.0, 0.95), (0.9, 0.5), (0.99, 0.0)])
def test_gae_equals_the_sum_over_temporal_differences(gamma, lam):
    """The definition: A_t = sum_k (gamma lambda)^k delta_{t+k}, up to the episode's end."""
    lengths, steps = [1, 3, 5], 5
    rewards, values = torch.randn(steps, 3), torch.randn(steps, 3)
    done = torch.stack([torch.arange(steps) >= n - 1 for n in lengths], dim=1)
    advantages = ppo.gae(rewards, values, done, gamma, lam)
    for b, n in enumerate(lengths):
        v = [*values[:n, b].tolist(), 0.0]
        delta = [rewards[t, b].item() + gamma * v[t + 1] - v[t] for t in range(n)]
        for t in range(n):
            expected = sum((gamma * lam) ** k * delta[t + k] for k in range(n - t))
            assert advantages[t, b].item() == pytest.approx(expected, abs=1e-5)


def test_normalise_over_two_processes_is_normalise_over_both():
    first, second = torch.randn(5), 3 + torch.randn(9)
    both = ppo.normalise(torch.cat([first, second]))
    torch.testing.assert_close(both.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(both.std(correction=0), torch.tensor(1.0), atol=1e-5, rtol=0)
    mean = torch.cat([first, second]).mean()
    sums = iter(
        [
            torch.tensor([first.sum() + second.sum(), 14.0]),
            (first - mean).square().sum() + (second - mean).square().sum(),
        ]
    )
    torch.testing.assert_close(ppo.normalise(first, lambda _: next(sums)), both[:5])


@pytest.mark.parametrize("value", [-99.97, -0.3, 0.0, 1000 / 3])
def test_normalise_of_equal_advantages_is_zero(value):
    """Their mean is another number by a rounding error, which is no advantage."""
    for count in (1, 7, 20):
        assert ppo.normalise(torch.full((count,), value)).tolist() == [0.0] * count


def test_normalise_keeps_small_differences():
    assert ppo.normalise(100 + 0.01 * torch.tensor([-1.0, 1.0])).tolist() == pytest.approx([-1, 1], abs=1e-3)


def test_policy_loss_by_hand():
    ratio = torch.tensor([1.0, 1.5, 0.5, 1.5, 0.5])
    advantages = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0])
    loss, kl, clipped = ppo.policy_loss(ratio.log(), torch.zeros(5), advantages, 0.2)
    # min(r A, clip(r) A): 1, 1.2, 0.5, -1.5, -0.8
    assert loss.item() == pytest.approx(-(1 + 1.2 + 0.5 - 1.5 - 0.8) / 5)
    assert kl.item() == pytest.approx((ratio - 1 - ratio.log()).mean().item())
    assert clipped.item() == pytest.approx(4 / 5)


def test_clipped_ratios_have_no_gradient():
    log_prob = torch.tensor([1.5, 0.5, 1.5, 0.5]).log().requires_grad_()
    loss = ppo.policy_loss(log_prob, torch.zeros(4), torch.tensor([1.0, 1.0, -1.0, -1.0]), 0.2)[0]
    loss.backward()
    assert (log_prob.grad != 0).tolist() == [False, True, True, False]


def test_explained_variance():
    returns = torch.tensor([1.0, 2.0, 3.0])
    assert ppo.explained_variance(returns, returns) == 1
    assert ppo.explained_variance(torch.full((3,), 7.0), returns) == 0
    assert ppo.explained_variance(torch.zeros(3), torch.ones(3)) == 0


@pytest.mark.parametrize(
    ("rate", "moved", "expected"),
    [
        (0.002, 0.61, 0.001),  # more than 1.5 times the target
        (0.002, 0.60, 0.002),
        (0.002, 0.20, 0.002),
        (0.001, 0.19, 0.0015),  # less than half of it
        (0.0025, 0.0, 0.003),  # at most the largest
        (0.003, 0.1, 0.003),
        (0.002, float("inf"), 0.001),
        (0.002, float("nan"), 0.001),
    ],
)
def test_next_rate_by_hand(rate, moved, expected):
    assert ppo.next_rate(rate, moved, target=0.4, largest=0.003) == pytest.approx(expected)
