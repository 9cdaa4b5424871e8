import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.networks import mobilenet_v2, resnet20
from gnnrl_lightning.speed.joined import joined_uses
from gnnrl_lightning.speed.operators import operator_uses

IMAGE = torch.zeros(1, 3, 16, 16)


class Branches(nn.Module):
    """An addition of two convolutions, a gate, and a convolution whose output is read twice."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Conv2d(3, 8, 1, bias=False)
        self.norm, self.relu = nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        self.twice = nn.Conv2d(8, 6, 1, bias=False)
        self.head = nn.Linear(6, 10)

    def forward(self, x):
        left = self.norm(self.left(x))
        x = self.relu(self.right(x).add_(left))
        x = self.twice(x)
        return self.head((x * x.sigmoid()).mean((2, 3)))


def traced(network):
    network = network.eval()
    return gnnrl_lightning.trace(network, IMAGE, self_test=False), network


def test_operators_join_the_one_whose_only_reader_they_are():
    graph, network = traced(Branches())
    found = [use.key for use, _ in joined_uses(graph, network)]
    assert found == [
        "conv2d kernel_size 3x3 stride 1x1 padding 1x1 16x16 + batch_norm",
        "conv2d kernel_size 1x1 stride 1x1 padding 0x0 16x16 + add + relu",
        "conv2d kernel_size 1x1 stride 1x1 padding 0x0 16x16",
        "sigmoid 16x16 + mul",
        "mean 16x16 to",
        "linear bias True",
    ]


def test_a_chain_reads_what_its_first_operator_reads_and_writes_what_its_last_one_writes():
    graph, network = traced(Branches())
    single, chains = dict(enumerate(operator_uses(graph, network))), joined_uses(graph, network)
    by_operator = {use.operator: use for use, _ in single.values()}
    maps = graph.feature_maps
    for use, chain in chains:
        assert use.source == by_operator[use.operator].source
        assert maps[use.target].shape[1:] == chain.head.writes[1:]
    covered = sum(1 + len(chain.followers) for _, chain in chains)
    assert covered == len(single)


@pytest.mark.parametrize("make", [Branches, resnet20, mobilenet_v2])
def test_made_chains_compute_the_shapes_of_the_pruned_network(make):
    graph, network = traced(make())
    widths = (graph.widths // 2).clamp(min=1)
    channels = graph.channels(widths[None])[0].tolist()
    dense = graph.channels(graph.widths[None])[0].tolist()
    for use, chain in joined_uses(graph, network):
        if chain.head.copied:
            assert not chain.followers
            continue
        inputs = 0 if use.source is None else channels[use.source]
        module, given = chain.made(inputs, channels[use.target], 2)
        shape = graph.feature_maps[use.target].shape
        place = shape.index(dense[use.target])
        expected = (2, *shape[:place], channels[use.target], *shape[place + 1 :])
        before = [tensor.clone() for tensor in given]
        assert tuple(module(*given).shape) == expected, use.key
        assert all(map(torch.equal, given, before)) or "+" not in use.key  # its inputs are not written into


def test_a_chain_computes_its_operators_in_turn():
    """1/64 is every weight, mean and variance of a made layer."""
    graph, network = traced(Branches())
    (chain,) = (chain for use, chain in joined_uses(graph, network) if "+ add" in use.key)
    module, (x, other) = chain.made(4, 5, 1)
    assert x.shape == (1, 4, 16, 16) and other.shape == (1, 5, 16, 16)
    torch.testing.assert_close(module(x, other - 1), torch.zeros(1, 5, 16, 16))  # 4 * 0.5 / 64 - 0.5 is below zero
    torch.testing.assert_close(module(x, other), torch.full((1, 5, 16, 16), 4 * 0.5 / 64 + 0.5))
