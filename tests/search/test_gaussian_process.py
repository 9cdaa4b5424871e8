"""The Gaussian process on groups that have hardly been varied."""

import pytest
import torch

from gnnrl_lightning.search.gaussian_process import posterior


def drawn(count, seed):
    return 0.3 * torch.randn(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rewards(inputs):
    return -inputs[:, :2].square().sum(1) - inputs[:, 3]


@pytest.mark.parametrize("varied", [0.0, 1e-3])
def test_a_group_that_has_not_been_varied_is_uncertain_and_nothing_more(varied):
    """A group of two channels keeps both in all known candidates, and one in half of the others."""
    known, new = drawn(25, 0), drawn(300, 1)
    known[:, 2], new[:, 2] = varied * known[:, 2], torch.tensor([0.0, 0.5]).log1p().neg().repeat(150)
    mean, covariance = posterior(known, rewards(known), new)
    deviation = covariance.diagonal().sqrt()
    assert bool(mean.isfinite().all()) and 0 < deviation[::2].mean() < deviation[1::2].mean() < 3
    assert torch.corrcoef(torch.stack([mean, rewards(new)]))[0, 1] > 0.9


def test_equal_rewards_are_no_signal():
    mean, covariance = posterior(drawn(20, 0), torch.full((20,), 0.7, dtype=torch.float64), drawn(30, 1))
    assert mean.abs().max() < 1e-6 and bool(covariance.isfinite().all())
