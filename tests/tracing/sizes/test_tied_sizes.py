"""Channels of tensors that the code gives the size of another one."""

import torch

import gnnrl_lightning
from tests.support.networks_sizes import SizedAsInput, SizedByCode

EXAMPLE = torch.zeros(1, 3, 8, 8)


def test_each_tensor_keeps_channels_of_its_own():
    """The weights are sliced by hand: channels 0 and 2 of the first convolution, 1 and 5 of the second."""
    network = SizedAsInput()
    graph = gnnrl_lightning.trace(network, EXAMPLE)
    small = graph.plan_from([torch.tensor([[0, 2], [1, 5]])]).apply(network)
    assert torch.equal(small.a.weight, network.a.weight[[0, 2]])
    assert torch.equal(small.middle.b.weight, network.middle.b.weight[[1, 5]][:, [0, 2]])
    assert torch.equal(small.head.weight, network.head.weight[:, [1, 5]])
    assert small(EXAMPLE).shape == (1, 10)


def test_a_constant_of_the_code_ties_nothing():
    graph = gnnrl_lightning.trace(SizedByCode(), EXAMPLE)
    (group,) = graph.groups
    assert (group.name, group.sets) == ("a", 1)
    (reason,) = [item for item in graph.reasons if item.groups == ("middle.b",)]
    assert "reshape(len(x), 6, -1)" in reason.source
