import math

import pytest
import torch

from gnnrl_lightning.rl.policies import Beta, LogKeep
from gnnrl_lightning.rl.policies.log_keep import GONE, NEVER


@pytest.mark.parametrize("action", [0.1, 0.5, 0.9])
def test_log_keep_ratios_are_normal(action):
    """The same spread in log keep ratios whether much or little is kept, and never less than `narrowest`."""
    location, spread = LogKeep.parameters(action, 0.3)
    distribution = LogKeep(torch.tensor([location, spread]).expand(100_000, 2))
    assert float(distribution.squash(distribution.mode)[0]) == pytest.approx(action, abs=1e-6)
    raw = distribution.sample()
    assert float(raw.std()) == pytest.approx(math.hypot(0.3, LogKeep.narrowest), rel=0.02)
    reference = torch.distributions.Normal(math.log(1 - action), math.hypot(0.3, LogKeep.narrowest))
    torch.testing.assert_close(distribution.log_prob(raw), reference.log_prob(raw))
    torch.testing.assert_close(distribution.entropy()[0], reference.entropy())
    keep = 1 - distribution.squash(raw)
    torch.testing.assert_close(keep, raw.exp().clamp(max=1))
    assert LogKeep(torch.tensor([location, -30.0])).sample().isfinite()
    assert float(LogKeep(torch.tensor([location, -30.0]))._normal.scale) == pytest.approx(LogKeep.narrowest, rel=0.01)


def test_the_spread_around_a_proposal_is_a_channel_at_least():
    """Of 20 channels 4 are proposed: one channel is 1/20 as an action, and a quarter of what is kept."""
    proposal, step = torch.tensor([0.8, 0.2]), torch.tensor([0.05, 0.05])
    spread = LogKeep.spread_around(proposal, torch.tensor(0.1), step).exp()
    torch.testing.assert_close(spread, torch.tensor([0.25, 0.1]))
    torch.testing.assert_close(Beta.spread_around(proposal, torch.tensor(0.01), step), Beta.spread_of(step))
    assert float(LogKeep.spread_around(torch.tensor(0.95), torch.tensor(0.1), torch.tensor(0.05)).exp()) == (
        pytest.approx(LogKeep.widest)
    )


def test_whole_groups_go_with_the_probability_of_their_odds():
    parameters, odds = torch.tensor([-0.5, -1.0]).expand(4, 2), torch.tensor([NEVER, -2.0, 0.0, 3.0])
    distribution = LogKeep(parameters.expand(50_000, 4, 2), odds.expand(50_000, 4))
    raw = distribution.sample()
    gone = raw <= GONE
    torch.testing.assert_close(gone.float().mean(0), odds.sigmoid(), atol=0.01, rtol=0)
    assert not bool(gone[:, 0].any()) and bool((LogKeep.squash(raw)[gone] == 1).all())
    without = LogKeep(parameters).log_prob(raw)
    expected = torch.where(gone, odds.sigmoid().log(), without + (1 - odds.sigmoid()).log())
    torch.testing.assert_close(distribution.log_prob(raw)[:, 1:], expected[:, 1:])
    torch.testing.assert_close(distribution.log_prob(raw)[:, 0], without[:, 0])
    torch.testing.assert_close(distribution.entropy()[0], -distribution.log_prob(raw).mean(0), atol=0.02, rtol=0)
    assert (distribution.mode[0] == GONE).tolist() == [False, False, False, True]


def test_gradients_of_whole_groups_are_finite():
    parameters = torch.zeros(3, 2, requires_grad=True)
    odds = torch.tensor([NEVER, -1.0, 1.0], requires_grad=True)
    distribution = LogKeep(parameters, odds)
    (distribution.log_prob(torch.tensor([-0.3, GONE, -0.3])) + distribution.entropy()).sum().backward()
    assert parameters.grad is not None and bool(parameters.grad.isfinite().all())
    assert odds.grad is not None and bool(odds.grad.isfinite().all()) and odds.grad.abs()[1:].min() > 0


def test_a_group_that_may_not_go_never_does(monkeypatch):
    """Not even with the smallest number that can be drawn."""
    monkeypatch.setattr(torch, "rand_like", torch.zeros_like)
    distribution = LogKeep(torch.zeros(2, 2), torch.tensor([NEVER, -1.0]))
    assert (distribution.sample() == GONE).tolist() == [False, True]
    assert distribution.entropy().isfinite().all()
