"""Kept layers: by name, glob and type; they have the same tensors after pruning."""

import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks.cifar_resnet import resnet20
from tests.support.networks_zoo import ZOO


class Branches(nn.Module):
    """conv1 -> norm1 -> conv2 -> conv3 -> head, with an additional parameter in between."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.norm1 = nn.BatchNorm2d(8)
        self.act = nn.ReLU()
        self.conv2 = nn.Conv2d(8, 10, 1)
        self.scale = nn.Parameter(torch.ones(10, 1, 1))
        self.conv3 = nn.Conv2d(10, 6, 1)
        self.up = nn.ConvTranspose2d(6, 5, 2)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        x = self.conv2(self.act(self.norm1(self.conv1(x)))) * self.scale
        return self.head(self.up(self.conv3(x)).mean((2, 3)))


def trace(keep, network=None):
    return gnnrl_lightning.trace(network or Branches(), torch.zeros(1, 3, 8, 8), keep=keep)


def names(graph):
    return [group.name for group in graph.groups]


@pytest.mark.parametrize(
    ("keep", "left", "found"),
    [
        ([], ["conv1", "conv2", "conv3", "up"], ()),
        (["conv2"], ["conv3", "up"], ("conv2",)),  # its inputs and its outputs
        (["conv1"], ["conv2", "conv3", "up"], ("conv1",)),
        (["norm1"], ["conv2", "conv3", "up"], ("norm1",)),
        (["norm1.running_mean"], ["conv2", "conv3", "up"], ("norm1.running_mean",)),
        (["scale"], ["conv1", "conv3", "up"], ("scale",)),
        (["conv2.bias"], ["conv1", "conv3", "up"], ("conv2.bias",)),
        (["conv[12]"], ["conv3", "up"], ("conv1", "conv2")),
        (
            ["[ac]*[t1]"],
            ["up"],
            ("conv1", "conv1.weight", "conv2.weight", "conv3.weight"),
        ),  # act, too, has nothing to keep
        (["head"], ["conv1", "conv2", "conv3"], ("head",)),
        (["torch.nn.ConvTranspose2d"], ["conv1", "conv2"], ("up",)),
        ([nn.ConvTranspose2d, "norm1"], ["conv2"], ("up", "norm1")),
    ],
)
def test_kept_layers_freeze_what_they_make_and_read(keep, left, found):
    graph = trace(keep)
    assert names(graph) == left and graph.kept == found
    again = trace(graph.kept)
    assert again.fingerprint == graph.fingerprint and again.kept == graph.kept
    kept = [group for group in graph.frozen if group.operator == "keep"]
    assert {group.name for group in kept} == {"conv1", "conv2", "conv3", "up"} - set(left)


def test_the_reason_names_what_was_given():
    reasons = {group.name: group.reason for group in trace(["norm*", nn.ConvTranspose2d]).frozen}
    assert reasons["conv1"] == "kept by the user (norm*)"
    assert reasons["conv3"] == reasons["up"] == "kept by the user (torch.nn.modules.conv.ConvTranspose2d)"


@pytest.mark.parametrize("pattern", ["layer1", "layer2.*.conv2", "stem", "*.bn1"])
def test_kept_layers_have_the_same_tensors_after_pruning(pattern):
    network = resnet20()
    everything = dict(network.named_modules())
    pattern = pattern if pattern != "stem" else next(name for name, m in everything.items() if isinstance(m, nn.Conv2d))
    graph = trace([pattern], network)
    small = graph.plan(network, graph.smallest).apply(network)
    before, after = network.state_dict(), small.state_dict()
    kept = [name for name in before if any(name.startswith(f"{module}.") for module in graph.kept)]
    assert kept and all(torch.equal(before[name], after[name]) for name in kept)
    assert any(before[name].shape != after[name].shape for name in before)


@pytest.mark.parametrize("name", ["Grouped", "DepthwiseMultiplier", "DenseConcat", "Residual", "C2f", "Flatten"])
def test_each_layer_of_other_networks_can_be_kept(name):
    """Also for grouped and concatenated channels; the other groups are pruned exactly."""
    case = ZOO[name]
    network = case.build()
    for layer in {parameter.rpartition(".")[0] for parameter, _ in network.named_parameters()} - {""}:
        graph = gnnrl_lightning.trace(network, case.inputs(), keep=[layer])
        small = graph.plan(network, graph.smallest).apply(network)
        for item, tensor in network.state_dict().items():
            if item.startswith(f"{layer}."):
                assert torch.equal(small.state_dict()[item], tensor), item


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (["conv22"], r"groups.keep 'conv22' matches no module or parameter \(did you mean conv2"),
        (["conv2.wieght"], r"'conv2.wieght' matches no module or parameter \(did you mean conv2.weight"),
        (
            ["layer9.*"],
            "matches no module or parameter: expected a name or a glob, or the import path of a",
        ),
        (["act"], "groups.keep act: act has no parameters: there is nothing to keep"),
        (
            ["torch.nn.Conv3d"],
            "no module of this type; expected one of BatchNorm2d, Conv2d, ConvTranspose2d, Linear, ReLU",
        ),
        ([nn.Conv1d], r"groups.keep torch.nn.modules.conv.Conv1d: there is no module of this type"),
        (["torch.nn.Conv2"], "groups.keep 'torch.nn.Conv2' cannot be imported"),
        (["torch.add"], "expected a name, a glob, or a module type"),
        ([int], "expected a name, a glob, or a module type"),
    ],
)
def test_what_is_not_there_is_refused(keep, message):
    with pytest.raises(UserError, match=message):
        trace(keep)


def test_tied_layers_are_kept_by_either_name():
    class Tied(Branches):
        def __init__(self):
            super().__init__()
            self.again = self.conv1

    assert names(trace(["again"], Tied())) == ["conv2", "conv3", "up"]
