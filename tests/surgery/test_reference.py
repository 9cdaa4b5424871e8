"""What "exact" means where channels are summarised: by-hand formulas over the channels that are kept."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

import gnnrl_lightning
from tests.support.exactness import TOLERANCE, difference, forward, random_weights
from tests.support.networks_zoo import Pair

KEPT = [0, 2, 3, 5]
"""Kept channels of the first convolution, of six: two of three blocks of two for group norms would be others."""


class Normed(Pair):
    """A convolution, a norm of its six channels, another convolution."""

    def __init__(self, norm):
        super().__init__(6, 6)
        self.norm = norm()

    def features(self, x):
        return self.b(self.norm(self.a(x)).sigmoid())


class Read(Pair):
    """The same without a norm."""

    def __init__(self):
        super().__init__(6, 6)

    def features(self, x):
        return self.b(self.a(x).sigmoid())


class ChannelsLast(nn.Module):
    """A norm of the last dimension, for channels of the first one."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class Mean(nn.Module):
    """The mean over the channels, subtracted."""

    def forward(self, x):
        return x - x.mean(1, keepdim=True)


def standardised(x, dims):
    mean = x.mean(dims, keepdim=True)
    return (x - mean) / (((x - mean) ** 2).mean(dims, keepdim=True) + 1e-5) ** 0.5


def scaled(x, norm, kept):
    return x * norm.weight[kept, None, None] + norm.bias[kept, None, None]


def layer_norm(network, x):
    return scaled(standardised(x, 1), network.norm.norm, KEPT)


def one_group(network, x):
    return scaled(standardised(x, (1, 2, 3)), network.norm, KEPT)


def plain_layer_norm(network, x):
    return standardised(x, 1)


def rms_norm(network, x):
    scale = network.norm.norm.weight[KEPT, None, None]
    return scale * x / ((x**2).sum(1, keepdim=True) / len(KEPT) + 1e-3) ** 0.5


def mean(network, x):
    return x - sum(x[:, i : i + 1] for i in range(len(KEPT))) / len(KEPT)


@pytest.mark.parametrize(
    ("norm", "by_hand"),
    [
        (lambda: ChannelsLast(nn.LayerNorm(6)), layer_norm),
        (lambda: ChannelsLast(nn.LayerNorm(6, elementwise_affine=False)), plain_layer_norm),
        (lambda: ChannelsLast(nn.RMSNorm(6, eps=1e-3)), rms_norm),
        (lambda: nn.GroupNorm(1, 6), one_group),
        (Mean, mean),
    ],
)
def test_statistics_are_over_the_channels_that_are_kept(norm, by_hand):
    network = random_weights(Normed(norm))
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = gnnrl_lightning.trace(network, x)
    plan = graph.plan_from([torch.tensor([KEPT]), torch.arange(5)[None]])
    with torch.no_grad():
        kept = by_hand(network, network.a(x)[:, KEPT]).sigmoid()
        read = F.conv2d(kept, network.b.weight[:, KEPT], network.b.bias, padding=1)
        expected = [network.head(read.mean((2, 3)))]
    assert difference(forward(plan.apply(network), (x,)), expected) <= TOLERANCE
    assert difference(forward(plan.mask(network), (x,)), expected) <= TOLERANCE


def test_whole_blocks_of_a_group_norm_go():
    """The statistics of a block depend on no other block: kept channels have the values of the dense network."""
    network = random_weights(Normed(lambda: nn.GroupNorm(3, 6)))
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = gnnrl_lightning.trace(network, x)
    assert [(group.name, group.width) for group in graph.groups] == [("a", 3), ("b", 5)]
    plan = graph.plan_from([torch.tensor([[0, 2]]), torch.arange(5)[None]])
    channels = [0, 1, 4, 5]
    with torch.no_grad():
        kept = network.norm(network.a(x))[:, channels].sigmoid()
        expected = [network.head(F.conv2d(kept, network.b.weight[:, channels], network.b.bias, padding=1).mean((2, 3)))]
    pruned = plan.apply(network)
    assert (pruned.norm.num_groups, pruned.norm.num_channels) == (2, 4)
    assert difference(forward(pruned, (x,)), expected) <= TOLERANCE


@pytest.mark.parametrize("computed", [weight_norm, spectral_norm])
def test_norms_of_weights_are_of_what_is_kept(computed):
    network = random_weights(Read())
    computed(network.b)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = gnnrl_lightning.trace(network, x)
    assert [(group.name, group.width) for group in graph.groups] == [("a", 6), ("b", 5)]
    rows = [0, 1, 4]
    plan = graph.plan_from([torch.tensor([KEPT]), torch.tensor([rows])])
    raw = network.b.parametrizations.weight
    with torch.no_grad():
        if computed is weight_norm:
            v = raw.original1[rows][:, KEPT]
            weight = raw.original0[rows] * v / (v**2).sum((1, 2, 3), keepdim=True) ** 0.5
        else:
            v = raw.original[rows][:, KEPT]
            right = raw[0]._v.reshape(6, 9)[KEPT].flatten()
            weight = v / (raw[0]._u[rows] @ v.flatten(1) @ right)
        made = F.conv2d(network.a(x)[:, KEPT].sigmoid(), weight, network.b.bias[rows], padding=1)
        expected = [F.linear(made.mean((2, 3)), network.head.weight[:, rows], network.head.bias)]
    assert difference(forward(plan.apply(network), (x,)), expected) <= TOLERANCE
    assert difference(forward(plan.mask(network), (x,)), expected) <= TOLERANCE


def test_the_masked_network_runs_again_after_an_error():
    """Its mode ends with the forward pass that fails."""
    network = random_weights(Normed(lambda: ChannelsLast(nn.LayerNorm(6))))
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    graph = gnnrl_lightning.trace(network, x)
    plan = graph.plan_from([torch.tensor([KEPT]), torch.arange(5)[None]])
    masked = plan.mask(network)
    with pytest.raises(RuntimeError):
        masked(x[:, :2])
    assert difference(forward(masked, (x,)), forward(plan.apply(network), (x,))) <= TOLERANCE
    ones = torch.ones(1, 6, dtype=torch.float64)
    assert torch.equal(F.layer_norm(ones, (6,)), torch.zeros_like(ones))


class Product(nn.Module):
    """Queries and keys without heads: their product reads channels of two activations."""

    def __init__(self, product):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(4, 2)
        self.product = product

    def forward(self, x):
        return self.product(self.q(x).relu(), self.k(x).sigmoid().transpose(-1, -2)).relu() @ self.v(x)


@pytest.mark.parametrize(
    ("product", "dims"),
    [
        (torch.matmul, 3),
        (torch.Tensor.__matmul__, 3),
        (torch.bmm, 3),
        (torch.mm, 2),
        (lambda a, b: torch.addmm(a.new_ones(1, 1), a, b, alpha=2), 2),
    ],
)
def test_a_product_of_two_activations_reads_no_removed_channel(product, dims):
    """The reference is made by hand: queries and keys lose the columns that are not kept."""
    network, x = Product(product).double().eval(), torch.randn(1, 5, 4, dtype=torch.float64)
    x = x if dims == 3 else x[0]
    graph = gnnrl_lightning.trace(network, x)
    (group,) = graph.groups
    assert group.width == 6
    plan = graph.plan(network, torch.tensor([3]))
    (kept,) = plan.kept.values()
    q, k = network.q(x).relu()[..., kept], network.k(x).sigmoid()[..., kept]
    wanted = product(q, k.transpose(-1, -2)).relu() @ network.v(x)
    for made in (plan.apply(network), plan.mask(network)):
        assert torch.allclose(made(x), wanted, rtol=0, atol=1e-12)
