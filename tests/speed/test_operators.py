import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gnnrl_lightning
from gnnrl_lightning.speed.operators import operator_uses


class Mixed(nn.Module):
    """Most kinds of operators, with modules and functions."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.wide = nn.Conv2d(8, 12, 5, padding=4, dilation=2)
        self.depth = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.pool = nn.MaxPool2d(2)
        self.back = nn.ConvTranspose2d(12, 6, 4, stride=2, padding=1, output_padding=1)
        self.head = nn.Linear(6, 10)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = F.silu(self.wide(x))
        x = x + self.depth(x)
        x = self.back(self.pool(x))
        return self.head(torch.cat([x], 1).mean((2, 3)))


EXPECTED = {
    "conv2d kernel_size 3x3 stride 2x2 padding 1x1 16x16 to 8x8": (3, 8),
    "batch_norm 8x8": (None, 8),
    "relu 8x8": (None, 8),
    "conv2d kernel_size 5x5 stride 1x1 padding 4x4 dilation 2x2 bias True 8x8": (8, 12),
    "silu 8x8": (None, 12),
    "conv2d kernel_size 3x3 stride 1x1 padding 1x1 bias True groups 0 8x8": (None, 12),
    "add 8x8+8x8 to 8x8": (None, 12),
    "max_pool2d 8x8 to 4x4": (None, 12),
    "conv_transpose2d kernel_size 4x4 stride 2x2 padding 1x1 output_padding 1x1 bias True 4x4 to 9x9": (12, 6),
    "mean 9x9 to": (None, 6),
    "linear bias True": (6, 10),
}


def traced():
    network = Mixed().eval()
    graph = gnnrl_lightning.trace(network, torch.zeros(1, 3, 16, 16))
    return graph, network


def test_each_operator_has_a_key_with_all_that_its_time_depends_on():
    graph, network = traced()
    dense = graph.channels(graph.widths[None])[0].tolist()
    found = {
        use.key: (None if use.source is None else dense[use.source], dense[use.target])
        for use, form in operator_uses(graph, network)
        if form.name != "cat"
    }
    expected = {key.replace("8x8+8x8 to 8x8", "8x8"): ends for key, ends in EXPECTED.items()}
    assert found == expected


@pytest.mark.parametrize("batch", [1, 3])
def test_made_operators_compute_the_shapes_of_the_pruned_network(batch):
    """At dense and at other channels: each operator gives what the graph says that it writes."""
    graph, network = traced()
    widths = torch.stack([graph.widths, (graph.widths // 2).clamp(min=1)])
    for channels in graph.channels(widths).tolist():
        for use, form in operator_uses(graph, network):
            inputs = 0 if use.source is None else channels[use.source]
            function, given = form.made(inputs, channels[use.target], batch)
            shape = graph.feature_maps[use.target].shape
            dense = graph.channels(graph.widths[None])[0].tolist()[use.target]
            place = shape.index(dense)
            expected = (batch, *shape[:place], channels[use.target], *shape[place + 1 :])
            assert tuple(function(*given).shape) == expected, use.key


def test_made_layers_are_those_of_the_network():
    graph, network = traced()
    made = {form.name: form.made(4, 8, 1)[0] for use, form in operator_uses(graph, network) if "5x5" in use.key}
    layer = made["conv2d"]
    assert (layer.kernel_size, layer.padding, layer.dilation, layer.bias is not None) == ((5, 5), (4, 4), (2, 2), True)
    assert (layer.in_channels, layer.out_channels) == (4, 8)
    assert bool(layer.weight.isfinite().all())


def test_depthwise_convolutions_have_as_many_groups_as_channels():
    graph, network = traced()
    (form,) = (form for use, form in operator_uses(graph, network) if "groups 0" in use.key)
    layer, (x,) = form.made(0, 5, 2)
    assert (layer.groups, layer.in_channels, x.shape[1]) == (5, 5, 5)
