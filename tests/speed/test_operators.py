import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gnnrl_lightning
from gnnrl_lightning.speed.grids import wanted_grids
from gnnrl_lightning.speed.latency import measure_latency
from gnnrl_lightning.speed.operators import operator_uses
from gnnrl_lightning.speed.options import LatencyOptions
from tests.support import networks_attention


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
            if form.copied:
                assert form.name == "cat"
                continue
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


class Blocks(nn.Module):
    """Grouped convolutions, and functions that cannot be called with what they read alone."""

    def __init__(self):
        super().__init__()
        self.stem, self.grouped = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3, groups=4)
        self.head = nn.Conv2d(24, 5, 1)

    def forward(self, x):
        x = F.interpolate(torch.where(x > 0, x, -x), scale_factor=2)
        x = self.grouped(self.stem(x))
        return self.head(torch.cat([x, torch.einsum("nchw->ncwh", x)], 1)).mean((2, 3))


TOKENS, IMAGE = torch.randn(2, 5, 9), torch.randn(2, 3, 8, 8)
ATTENTION = ("Scaled", "ByHand", "ByEinsum", "GroupedByRepetition", "Builtin", "Encoder")


def made(name):
    """A network that is hard to take apart, and two examples."""
    if name == "Blocks":
        return Blocks().eval(), IMAGE
    return networks_attention.Model(getattr(networks_attention, name)()).eval(), TOKENS


@pytest.mark.parametrize("name", [*ATTENTION, "Blocks"])
def test_every_operator_runs_with_the_channels_of_its_grid(name):
    network, example = made(name)
    graph = gnnrl_lightning.trace(network, example)
    for key, item in wanted_grids(graph, network)[1].items():
        for inputs in item.inputs:
            for outputs in item.outputs:
                function, given = item.form.made(inputs, outputs, 2)
                assert function(*given) is not None, key


def test_heads_are_multiplied_in_as_many_parts_as_there_are():
    """Heads of width 4: tensors of 4 channels hold one of them, tensors of 12 three."""
    network, example = made("Scaled")
    graph = gnnrl_lightning.trace(network, example)
    form = next(form for _, form in operator_uses(graph, network) if form.name == "scaled_dot_product_attention")
    assert not form.copied
    for heads in (1, 3):
        function, given = form.made(0, 4 * heads, 2)
        assert [tuple(tensor.shape) for tensor in (*given, function(*given))] == [(2, heads, 5, 4)] * 4


def test_operators_that_cannot_be_called_cost_a_copy_of_what_they_read():
    network, example = made("Blocks")
    graph = gnnrl_lightning.trace(network, example)
    copied = {form.name: form for _, form in operator_uses(graph, network) if form.copied}
    assert {"where", "cat"} <= copied.keys()
    function, given = copied["cat"].made(0, 24, 2)
    assert [tensor.shape[1] for tensor in given] == [12, 12]
    assert all(torch.equal(one, other) for one, other in zip(function(*given), given, strict=True))


@pytest.mark.parametrize("name", ["Scaled", "Blocks"])
def test_the_latency_of_such_networks_is_measured(name):
    network, example = made(name)
    graph = gnnrl_lightning.trace(network, example)
    found = measure_latency(graph, network, example[:1], LatencyOptions(batch_size=1, threads=1, cache=None))
    assert float(found.model(graph.widths)) > 0 and found.model(graph.widths) >= found.model(graph.widths // 2)
