import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.networks import Perceptron, SmallUNet


def test_a_perceptron_has_relu_between_its_layers():
    network = Perceptron(10, (64, 32), 3)
    assert network(torch.zeros(2, 10)).shape == (2, 3)
    assert [type(layer) for layer in network] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    graph = gnnrl_lightning.trace(network, torch.zeros(2, 10))
    assert graph.widths.tolist() == [64, 32]


def test_a_u_net_gives_each_pixel_its_logits():
    network = SmallUNet(1, 3, width=4)
    assert network(torch.zeros(2, 1, 20, 20)).shape == (2, 3, 20, 20)
    graph = gnnrl_lightning.trace(network, torch.zeros(1, 1, 20, 20))
    # Two convolutions at full resolution, two at half of it, the way up, the decoder: none is frozen.
    assert sorted(graph.widths.tolist()) == [4, 4, 4, 4, 8, 8]
