"""How alike groups are by their places in the graph."""

import torch
from torch import nn

from gnnrl_lightning import trace
from gnnrl_lightning.networks.cifar_resnet import resnet20
from gnnrl_lightning.surrogate.likeness import likeness


def named(network, shape=(1, 3, 32, 32)):
    graph = trace(network.eval(), (torch.zeros(shape),), self_test=False)
    return likeness(graph), [group.name for group in graph.groups]


def test_blocks_of_a_stage_are_more_alike_than_anything_else():
    alike, names = named(resnet20())
    assert torch.equal(alike, alike.T) and alike.diagonal().eq(1).all()
    assert torch.linalg.eigvalsh(alike).min() > -1e-9

    def of(first, second):
        return float(alike[names.index(first), names.index(second)])

    near, far = of("layer1.0.conv1", "layer1.1.conv1"), of("layer1.0.conv1", "layer1.2.conv1")
    assert 1 > near > far > of("layer1.0.conv1", "layer2.1.conv1") > of("layer1.0.conv1", "layer3.1.conv1")
    # Channels that blocks add to are alike across stages, and unlike the inner ones of their own stage.
    assert of("conv1", "layer2.0.conv2") > of("conv1", "layer1.1.conv1")


def test_layers_without_positions_have_a_likeness():
    alike, names = named(
        nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)), (1, 8)
    )
    assert len(names) == 2 and 0 < float(alike[0, 1]) < 1
