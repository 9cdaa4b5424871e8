import pytest
import torch

from gnnrl_lightning.rl.policies import Beta, ClippedGaussian, SquashedGaussian

KINDS = pytest.mark.parametrize("kind", [Beta, SquashedGaussian])
PARAMETERS = torch.tensor([[0.0, 0.0], [-2.0, 0.5], [1.5, -0.5]], dtype=torch.double)


def density(distribution, kind, points=200_001):
    """The grid of actions, and the density at them: (points, 3)."""
    grid = torch.linspace(0, 1, points, dtype=torch.double)[1:-1]
    raw = grid if kind is Beta else torch.atanh(2 * grid - 1)
    return grid, distribution.log_prob(raw[:, None].expand(-1, 3)).exp()


@KINDS
def test_density_integrates_to_one_and_gives_the_entropy(kind):
    distribution = kind(PARAMETERS)
    grid, p = density(distribution, kind)
    torch.testing.assert_close(torch.trapezoid(p, grid, dim=0), torch.ones(3).double(), atol=1e-4, rtol=0)
    entropy = -torch.trapezoid(p * p.clamp(min=1e-300).log(), grid, dim=0)
    torch.testing.assert_close(distribution.entropy(), entropy, atol=1e-3, rtol=0)


@KINDS
def test_samples_follow_the_density(kind):
    distribution = kind(PARAMETERS[:, None].expand(3, 20_000, 2))
    actions = distribution.squash(distribution.sample())
    assert actions.min() >= 0 and actions.max() <= 1
    grid, p = density(kind(PARAMETERS), kind)
    mean = torch.trapezoid(p * grid[:, None], grid, dim=0)
    torch.testing.assert_close(actions.mean(1), mean, atol=5e-3, rtol=0)


@KINDS
@pytest.mark.parametrize("action", [0.1, 0.3, 0.8])
def test_parameters_give_the_mode_and_the_spread_asked_for(kind, action):
    location, spread = kind.parameters(action, 0.08)
    distribution = kind(torch.tensor([location, spread]).expand(50_000, 2))
    torch.testing.assert_close(distribution.squash(distribution.mode)[0], torch.tensor(action))
    assert distribution.squash(distribution.sample()).std() == pytest.approx(0.08, rel=0.25)


@KINDS
def test_parameters_of_many_are_those_of_each(kind):
    actions, spreads = torch.tensor([0.02, 0.5, 0.9]), torch.tensor([0.03, 0.1, 0.25])
    locations = [kind.parameters(action, 0.1)[0] for action in actions.tolist()]
    torch.testing.assert_close(kind.location_of(actions), torch.tensor(locations))
    torch.testing.assert_close(
        kind.spread_of(spreads), torch.tensor([kind.parameters(0.5, spread)[1] for spread in spreads.tolist()])
    )


@KINDS
def test_extreme_parameters_stay_finite(kind):
    distribution = kind(torch.tensor([[-30.0, 30.0], [30.0, 30.0], [-30.0, -30.0], [30.0, -30.0]]))
    raw = distribution.sample()
    assert distribution.log_prob(raw).isfinite().all()
    assert distribution.entropy().isfinite().all()


@pytest.mark.parametrize("action", [0.1, 0.5, 0.8])
def test_a_clipped_gaussian_is_normal_but_for_its_ends(action):
    location, spread = ClippedGaussian.parameters(action, 0.1)
    distribution = ClippedGaussian(torch.tensor([location, spread]).expand(100_000, 2))
    reference = torch.distributions.Normal(action, 0.1)
    assert float(distribution.squash(distribution.mode)[0]) == pytest.approx(action)
    raw = distribution.sample()
    torch.testing.assert_close(distribution.log_prob(raw), reference.log_prob((raw + 1) / 2), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(distribution.entropy()[0], reference.entropy())
    actions = distribution.squash(raw)
    assert actions.min() >= 0 and actions.max() <= 1
    # What lies beyond an end is clipped to it: Phi(-1) at 0.1, Phi(-2) at 0.8, and next to nothing at 0.5.
    clipped = float(((actions == 0) | (actions == 1)).float().mean())
    beyond = float(reference.cdf(torch.tensor(0.0)) + 1 - reference.cdf(torch.tensor(1.0)))
    assert clipped == pytest.approx(beyond, abs=5e-3)


def test_many_parameters_of_a_clipped_gaussian_are_those_of_each():
    actions, spreads = torch.tensor([0.02, 0.5, 0.9]), torch.tensor([0.03, 0.1, 0.25])
    locations = [ClippedGaussian.parameters(action, 0.1)[0] for action in actions.tolist()]
    torch.testing.assert_close(ClippedGaussian.location_of(actions), torch.tensor(locations))
    expected = [ClippedGaussian.parameters(0.5, spread)[1] for spread in spreads.tolist()]
    torch.testing.assert_close(ClippedGaussian.spread_of(spreads), torch.tensor(expected))
    extreme = ClippedGaussian(torch.tensor([[-30.0, 30.0], [30.0, -30.0]]))
    assert extreme.log_prob(extreme.sample()).isfinite().all() and extreme.entropy().isfinite().all()


def test_a_saturated_gaussian_action_keeps_its_log_probability():
    """The density is computed from the raw action, even if squashing rounds to 1."""
    distribution = SquashedGaussian(torch.tensor([9.0, 0.0]))
    raw = torch.tensor(9.5)
    assert distribution.squash(raw) == 1
    exact = SquashedGaussian(torch.tensor([9.0, 0.0], dtype=torch.double)).log_prob(raw.double())
    torch.testing.assert_close(distribution.log_prob(raw).double(), exact, atol=1e-4, rtol=1e-5)
