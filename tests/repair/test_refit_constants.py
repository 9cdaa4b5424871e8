"""Repairs of networks of which groups are gone entirely: what their branches give is a constant."""

import pytest
import torch
from torch import nn

from gnnrl_lightning import trace
from gnnrl_lightning.repair.batchnorm import reestimate_batch_norm
from gnnrl_lightning.repair.dense import Dense
from gnnrl_lightning.repair.table import REPAIRS
from tests.support.networks_branches import BRANCHES, Residual

IMAGES = torch.randn(64, 3, 6, 6, generator=torch.Generator().manual_seed(0))
"""Of so few positions that refits sample all."""


class Sum(nn.Module):
    """A residual branch with or without a batch norm and a bias, whose sum is the output."""

    def __init__(self, norm: bool, bias: bool, in_place: bool) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 6, 3, padding=1)
        self.second, self.in_place = nn.Conv2d(6, 5, 3, padding=1, bias=bias), in_place
        self.norm = nn.BatchNorm2d(5) if norm else nn.Identity()

    def forward(self, x):
        x = self.stem(x).relu()
        y = self.norm(self.second(self.first(x).relu()))
        if self.in_place:
            y += x
            return y
        return x + y


def without(network, gone):
    """The dense network, with batch norms of its own statistics, and one without groups, for each repair."""
    reestimate_batch_norm(network.eval(), [IMAGES])
    graph = trace(network, IMAGES[:1])
    widths = graph.widths * torch.tensor([group.name not in gone for group in graph.groups])
    plan, dense = graph.plan(network, widths), Dense(graph, network, IMAGES)

    def repaired(repair):
        pruned = plan.apply(network).eval()
        REPAIRS[repair].apply(dense, pruned, plan.selection)
        with torch.no_grad():
            return pruned(IMAGES) - network(IMAGES)

    return repaired


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(("norm", "bias"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("repair", ["refit", "reconstruction"])
def test_the_constant_is_the_mean_of_what_is_missing(repair, norm, bias, in_place):
    """No other constant has a smaller squared error: that of each channel has the mean 0."""
    torch.manual_seed(1)
    error = without(Sum(norm, bias, in_place), {"first"})(repair)
    assert float(error.std(0).max()) > 0.05
    torch.testing.assert_close(error.mean((0, 2, 3)), torch.zeros(5), rtol=0, atol=2e-3)


def test_re_estimated_batch_norms_give_the_mean_of_what_is_missing():
    torch.manual_seed(1)
    repaired = without(Sum(True, False, False), {"first"})
    assert float(repaired("none").mean((0, 2, 3)).abs().max()) > 0.05
    torch.testing.assert_close(repaired("batch_norm").mean((0, 2, 3)), torch.zeros(5), rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", BRANCHES)
@pytest.mark.parametrize("repair", ["batch_norm", "predicted_batch_norm", "reconstruction", "refit"])
def test_repairs_of_networks_without_branches(kind, repair):
    torch.manual_seed(2)
    repaired = without(kind(), BRANCHES[kind][0])
    slicing, error = float(repaired("none").square().mean()), float(repaired(repair).square().mean())
    assert error < (1.001 if repair.endswith("batch_norm") else 0.8) * slicing


def test_a_branch_without_a_bias_gives_zero():
    torch.manual_seed(1)
    repaired = without(Sum(False, False, False), {"first"})
    torch.testing.assert_close(repaired("refit"), repaired("none"))


def test_norms_after_constants_keep_their_variance():
    """Where re-estimated, it would be zero."""
    network = Residual().eval()
    graph = trace(network, torch.zeros(1, 3, 6, 6))
    widths = graph.widths * torch.tensor([group.name != "block.0" for group in graph.groups])
    pruned = graph.plan(network, widths).apply(network)
    reestimate_batch_norm(pruned, [IMAGES])
    assert torch.equal(pruned.block[4].running_var, torch.ones(8))
    assert torch.equal(pruned.block[4].running_mean, torch.zeros(8))
