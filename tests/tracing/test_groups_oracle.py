"""torch-pruning as an oracle: on networks that it handles, its groups are ours."""

from functools import cache

import pytest
import torch
import torch_pruning
import torchvision
from torch import nn

import gnnrl_lightning


def vgg(layers):
    """torchvision's VGG with batch norm, at widths that are quick."""
    features = torchvision.models.vgg.make_layers(layers, batch_norm=True)
    head = (nn.Linear(32 * 4, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 10))
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(2), nn.Flatten(), *head)


NETWORKS = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "vgg": lambda: vgg([8, "M", 16, "M", 24, 24, "M", 32, 32, "M"]),
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=10, width_mult=0.5),
    "densenet": lambda: torchvision.models.DenseNet(4, (2, 3), 8, num_classes=10),
}

NORM = ("weight", "bias", "running_mean", "running_var")


def shrunk(network, graph, group):
    """The `(tensor, dimension)` pairs that a group of torch-pruning shrinks."""
    names = {module: name for name, module in network.named_modules()}
    pairs = set()
    for dependency, _ in group:
        module = dependency.target.module
        if module not in names:
            continue  # concatenations, sums and the like
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            pairs |= {(f"{names[module]}.{tensor}", 0) for tensor in NORM}
        elif graph.is_out_channel_pruning_fn(dependency.handler):
            pairs |= {(f"{names[module]}.{tensor}", 0) for tensor, _ in module.named_parameters()}
        else:
            pairs.add((f"{names[module]}.weight", 1))
    return frozenset(pairs)


@cache
def traced(name):
    """A network, its example and its graph."""
    network = NETWORKS[name]().eval()
    example = torch.randn(1, 3, 32, 32)
    return network, example, gnnrl_lightning.trace(network, example, self_test=False)


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_but_input_and_logits_is_frozen(name):
    _, _, graph = traced(name)
    assert [(group.width, group.reason) for group in graph.frozen] == [
        (3, "is the input of the network"),
        (10, "is an output of the network"),
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_equal_those_of_torch_pruning(name):
    network, example, ours = traced(name)
    logits = [module for module, layer in network.named_modules() if isinstance(layer, nn.Linear)][-1]
    graph = torch_pruning.DependencyGraph().build_dependency(network, example)
    theirs = {}
    for group in graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]):
        pairs = shrunk(network, graph, group)
        if (f"{logits}.weight", 0) not in pairs:  # torch-pruning would prune the classes as well
            theirs[pairs] = len(group[0].idxs)
    found = {
        frozenset((member.parameter, member.dimension) for member in group.members): group.width * group.sets
        for group in ours.groups
    }
    assert found == theirs
