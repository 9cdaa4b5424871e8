"""Numbers of the code that follow a width, in every place where code writes them."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gnnrl_lightning
from tests.support.exactness import check, random_weights
from tests.support.networks_zoo import Pair


class Written(Pair):
    """What `between` computes of six channels, then a gain for each of them."""

    def __init__(self, between):
        super().__init__(6, 6)
        self.between, self.gain = between, nn.Parameter(torch.rand(6))

    def features(self, x):
        return self.b(self.between(self.a(x)) * self.gain[:, None, None])


def compared(x):
    """Each position is a mean of all, by how alike their channels are."""
    flat = x.flatten(2)
    scores = (flat.transpose(1, 2) @ flat).view(len(x), *x.shape[2:], 1, *x.shape[2:])
    scores = scores / torch.sqrt(torch.tensor(x.shape[1], dtype=x.dtype))
    return (flat @ scores.flatten(1, 2).flatten(2).softmax(1)).view_as(x)


FOLLOW = {
    "channels": lambda x: x * x.shape[1] ** -0.5,
    "unit vectors": lambda x: F.normalize(x, dim=1) * math.sqrt(x.shape[1]),
    "a sum": lambda x: x - x.sum(1, keepdim=True) / x.shape[1],
    "squares": lambda x: x / (x.square().sum(1, keepdim=True) / x.shape[1] + 1).sqrt(),
    "a norm": lambda x: x / (x.norm(dim=1, keepdim=True) * x.shape[1] ** -0.5),
    "a sum over all": lambda x: x / (x.flatten(1).square().sum(1) / x[0].numel() + 1).view(-1, 1, 1, 1),
    "a softmax": lambda x: x * (x.softmax(1) * x.shape[1]),
    "views of scores, a tensor": compared,
}


@pytest.mark.parametrize("between", FOLLOW.values(), ids=FOLLOW)
def test_numbers_that_are_roots_of_the_width(between):
    network = random_weights(Written(between))
    example = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = gnnrl_lightning.trace(network, example)
    assert {group.name: group.width for group in graph.groups} == {"a": 6, "b": 5}
    generator = torch.Generator().manual_seed(1)
    for widths in (graph.smallest, graph.widths // 2, graph.widths - 1):
        check(graph, network, (example,), widths, generator)


class OwnNorm(nn.Module):
    """A norm in a module of its own, which has no layers."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, 6, 1, 1))

    def forward(self, x):
        return F.normalize(x, dim=1) * self.gain * x.shape[1] ** 0.5


def test_a_number_in_a_module_that_makes_no_channels():
    network = random_weights(Written(OwnNorm()))
    example = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = gnnrl_lightning.trace(network, example)
    assert {group.name: group.width for group in graph.groups} == {"a": 6, "b": 5}
    check(graph, network, (example,), graph.widths // 2, torch.Generator().manual_seed(1))


class OneHead(nn.Module):
    """Attention of a single head, whose width is an attribute: of a view, and in the scale."""

    def __init__(self):
        super().__init__()
        self.heads, self.width = 1, 6
        self.q, self.k, self.v = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)

    def split(self, x):
        return x.view(*x.shape[:-1], self.heads, self.width).transpose(1, 2)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = (self.split(layer(tokens)) for layer in (self.q, self.k, self.v))
        y = (q @ k.transpose(-1, -2) / math.sqrt(self.width)).softmax(-1) @ v
        return y.transpose(1, 2).flatten(2).transpose(1, 2).reshape(x.shape)


def test_the_width_of_a_single_head_is_an_attribute():
    network = random_weights(Written(OneHead()))
    example = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = gnnrl_lightning.trace(network, example)
    assert {group.width for group in graph.groups} == {6, 5}
    pruned = check(graph, network, (example,), graph.widths // 2, torch.Generator().manual_seed(1))
    assert (pruned.between.heads, pruned.between.width) == (1, 3)


FIXED = {"one more": lambda x: x / (x.shape[1] + 1), "a logarithm": lambda x: x * math.log(x.shape[1])}


@pytest.mark.parametrize("between", FIXED.values(), ids=FIXED)
def test_other_numbers_keep_the_channels(between):
    graph = gnnrl_lightning.trace(Written(between), torch.randn(1, 3, 8, 8))
    assert [group.name for group in graph.groups] == ["b"]
