import math

import pytest
import torch

from gnnrl_lightning.rl.policies import Beta, LogKeep


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
