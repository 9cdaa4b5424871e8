"""Copies of networks whose tensors are anywhere."""

import types

import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.networks.copies import survey
from gnnrl_lightning.tracing.program.copies import converted_copy, shared_copy
from tests.support.networks_code import Normed


def network_with_tensors_anywhere():
    network = Normed()
    network.plain = torch.ones(1)
    network.nested = {"list": [torch.ones(2), types.SimpleNamespace(tensor=torch.ones(3), itself=network)]}
    network.unregistered = [nn.Linear(4, 4, bias=False)]
    network.again = network.a.weight
    network.made = network.head.weight * 2  # not a leaf: it does not copy itself
    return network


def shapes(tensors):
    return sorted(tuple(tensor.shape) for tensor in tensors)


def test_every_tensor_is_converted_once():
    network = network_with_tensors_anywhere()
    held = [tensor for tensor in survey(network)[1] if tensor is not network.a.weight]
    assert shapes(held) == [(1,), (2,), (2, 6), (3,), (4, 4)]
    copied = converted_copy(network, lambda name, tensor: torch.empty_like(tensor, device="meta"))
    found = [*copied.parameters(), *copied.buffers(), *survey(copied)[1]]
    assert {tensor.device.type for tensor in found} == {"meta"}
    assert copied.again is copied.a.weight and copied.nested["list"][1].itself is copied
    assert all(tensor.device.type == "cpu" for tensor in (*network.parameters(), *held))


def test_a_shared_copy_shares_what_is_trained_and_keeps_its_own_history():
    network = network_with_tensors_anywhere().train()
    copied = shared_copy(network)
    assert network.training and not copied.training
    assert all(map(lambda one, other: one is other, network.parameters(), copied.parameters()))
    assert copied.again is network.a.weight
    assert torch.equal(copied.made, network.made) and copied.made is not network.made and copied.made.is_leaf
    copied.nested["list"][0] = None
    assert network.nested["list"][0] is not None


class Functions(nn.Module):
    """A hook keeps a feature map, and a function of the module scales it: both name the module in their code."""

    def __init__(self):
        super().__init__()
        self.stem, self.head, self.maps = nn.Conv2d(3, 6, 1), nn.Linear(6, 4), {}
        self.scale = nn.Parameter(torch.rand(6))
        self.scaled = lambda x, power=2: x * self.scale**power
        self.stem.register_forward_hook(self.keep("stem"))

    def keep(self, name):
        def hook(module, args, output):
            self.maps[name] = output

        return hook

    def forward(self, x):
        self.stem(x)
        return self.head(self.scaled(self.maps["stem"].mean((2, 3))))


def test_networks_with_such_functions_are_pruned_and_keep_no_tensor_of_the_trace():
    network, x = Functions(), torch.rand(2, 3, 4, 4)
    network(x)
    graph = gnnrl_lightning.trace(network, x)
    plan = graph.plan(network, torch.tensor([4]))
    assert [group.name for group in graph.groups] == ["stem"]
    torch.testing.assert_close(plan.apply(network)(x), plan.mask(network)(x))
    assert network.maps["stem"].shape == (2, 6, 4, 4) and type(network.maps["stem"]) is torch.Tensor
