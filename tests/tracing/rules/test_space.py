"""Operators over space."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gnnrl_lightning
from tests.support.exactness import check, random_weights
from tests.support.networks_code import Code


class Differences(Code):
    """Of neighbours along a dimension, whose size stays with as many values before or behind."""

    def __init__(self, dim, ends=False):
        super().__init__()
        self.dim, self.ends = dim, ends

    def between(self, x):
        first, dim = x.narrow(self.dim, 0, 1), self.dim
        return torch.diff(x, dim=dim, prepend=first) if self.ends else torch.cat([first, torch.diff(x, dim=dim)], dim)


CASES = [(-1, False, "ab"), (2, False, "ab"), (1, False, "b"), (-1, True, "b")]


@pytest.mark.parametrize(("dim", "ends", "names"), CASES)
def test_differences_of_neighbours_let_other_channels_pass(dim, ends, names):
    network, example = random_weights(Differences(dim, ends)), (torch.rand(1, 3, 6, 6, dtype=torch.float64),)
    graph = gnnrl_lightning.trace(network, example)
    assert [group.name for group in graph.groups] == list(names)
    check(graph, network, example, (graph.widths + 1) // 2, torch.Generator().manual_seed(0))


class Generated(nn.Module):
    """A linear layer makes maps, as in a generator: all values of a map are one channel, whatever follows."""

    def __init__(self, between):
        super().__init__()
        self.between, self.fc, self.norm = between, nn.Linear(6, 4 * 9), nn.BatchNorm2d(4)
        self.conv, self.out = nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(5, 2, 1)

    def forward(self, z):
        return self.out(self.conv(self.between(self.norm(self.fc(z).view(len(z), -1, 3, 3)).relu())).relu())


@pytest.mark.parametrize(
    "between",
    [
        lambda x: F.interpolate(x, scale_factor=2),
        lambda x: F.interpolate(x, size=(5, 7), mode="bilinear"),
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.adaptive_avg_pool2d(x, 2),
        lambda x: F.pad(x, (1, 1, 1, 1)),
        lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
        lambda x: x - x.mean((2, 3), keepdim=True),
        lambda x: F.instance_norm(x),
    ],
)
def test_maps_that_a_linear_layer_makes_are_channels(between):
    network, example = random_weights(Generated(between)), (torch.rand(1, 6, dtype=torch.float64),)
    graph = gnnrl_lightning.trace(network, example)
    assert [(group.name, group.width) for group in graph.groups] == [("fc", 4), ("conv", 5)]
    for widths in ((1, 5), (3, 2)):
        check(graph, network, example, torch.tensor(widths), torch.Generator().manual_seed(0))


class Normalised(Generated):
    """Blocks of two maps are normalised together."""

    def __init__(self):
        super().__init__(nn.GroupNorm(2, 4))
        self.norm = nn.Identity()


class Steps(nn.Module):
    """A linear layer makes the steps of a recurrent one."""

    def __init__(self):
        super().__init__()
        self.fc, self.rnn, self.out = nn.Linear(6, 5 * 4), nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, z):
        return self.out(self.rnn(self.fc(z).view(len(z), 5, -1))[0].mean(1))


@pytest.mark.parametrize(("kind", "groups"), [(Normalised, [("fc", 2), ("conv", 5)]), (Steps, [("fc", 4), ("rnn", 3)])])
def test_maps_and_steps_that_a_linear_layer_makes_are_read_by_other_layers(kind, groups):
    network, example = random_weights(kind()), (torch.rand(1, 6, dtype=torch.float64),)
    graph = gnnrl_lightning.trace(network, example)
    assert [(group.name, group.width) for group in graph.groups] == groups
    for widths in ((1, 2), (2, 1)):
        check(graph, network, example, torch.tensor(widths), torch.Generator().manual_seed(0))
