"""Modules in the place of layers without channels."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gnnrl_lightning import trace
from gnnrl_lightning.speed.inference import for_inference
from gnnrl_lightning.surgery.layers import find_layers
from gnnrl_lightning.surgery.vanished import (
    STANDING_IN,
    ConstantNorm,
    Geometry,
    Unread,
    WithoutInputs,
    WithoutOutputs,
    replace_vanished,
)
from tests.support.exactness import random_weights
from tests.support.networks_branches import DenseBlock, Residual

LAYERS = {
    "linear": (nn.Linear(5, 7), (2, 3, 5)),
    "1d": (nn.Conv1d(5, 7, 4, stride=3, padding=2, dilation=2), (2, 5, 19)),
    "2d": (nn.Conv2d(5, 7, (3, 5), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (2, 5, 9, 13)),
    "2d without a bias": (nn.Conv2d(5, 7, 3, bias=False), (2, 5, 6, 7)),
    "2d without a batch": (nn.Conv2d(5, 7, 2, stride=2), (5, 7, 6)),
    "3d": (nn.Conv3d(5, 7, 2, stride=2, padding=1), (1, 5, 4, 5, 6)),
    "same": (nn.Conv2d(5, 7, (5, 3), padding="same", dilation=(1, 3)), (2, 5, 6, 7)),
    "valid": (nn.Conv2d(5, 7, 3, padding="valid"), (2, 5, 6, 7)),
    "circular": (nn.Conv2d(5, 7, 3, padding=1, padding_mode="circular"), (2, 5, 6, 7)),
    "grouped": (nn.Conv2d(6, 4, 3, groups=2), (2, 6, 6, 7)),
    "transposed 1d": (nn.ConvTranspose1d(5, 7, 4, stride=3, padding=1, output_padding=2, dilation=2), (2, 5, 6)),
    "transposed 2d": (nn.ConvTranspose2d(5, 7, 3, stride=2, padding=1, output_padding=1), (2, 5, 4, 6)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("written", [False, True])
def test_layers_without_inputs_or_outputs_have_the_positions_of_the_layer(name, written):
    """Against PyTorch: a layer that reads zeros, and the shape of its output."""
    layer, shape = LAYERS[name]
    x = torch.zeros(shape)
    with torch.no_grad():
        expected = layer(x)
    dim = -1 if isinstance(layer, nn.Linear) else -len(layer.kernel_size) - 1
    nothing = x.narrow(dim, 0, 0)
    bias = torch.zeros(expected.shape[dim]) if layer.bias is None else layer.bias
    output = WithoutInputs(Geometry.of(layer), bias, written)(nothing)
    assert torch.equal(output, expected)
    assert output.is_contiguous() or not written
    assert WithoutOutputs(Geometry.of(layer))(x).shape == expected.narrow(dim, 0, 0).shape


def without_block():
    """A network whose first block is gone, and its dense network."""
    network = random_weights(Residual()).float()
    graph = trace(network, torch.zeros(1, 3, 10, 10))
    widths = graph.widths * torch.tensor([group.name != "block.0" for group in graph.groups])
    return graph, graph.plan(network, widths).apply(network)


def test_what_stands_in_is_trained_as_it_is_evaluated():
    """Only what the outputs depend on has parameters, and statistics of a constant are no estimates."""
    _, pruned = without_block()
    kinds = [type(module) for module in pruned.block]
    assert kinds == [WithoutOutputs, nn.Identity, nn.ReLU, WithoutInputs, ConstantNorm]
    images = torch.randn(4, 3, 10, 10)
    trained = copy.deepcopy(pruned).train()
    torch.testing.assert_close(trained(images), pruned(images))
    trained(images).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in trained.named_parameters()}
    assert {name for name in gradients if name.startswith("block")} == {"block.4.weight", "block.4.bias"}
    assert all(gradient is not None and bool(gradient.any()) for gradient in gradients.values())
    assert torch.equal(trained.block[4].running_var, pruned.block[4].running_var)


def test_the_type_is_that_of_the_layer_under_autocast():
    _, pruned = without_block()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        inner = pruned.block[0](torch.zeros(1, 8, 4, 4))
        assert inner.dtype == pruned.block[4](pruned.block[3](inner)).dtype == torch.bfloat16


def test_networks_are_prepared_for_scoring():
    graph, pruned = without_block()
    images = torch.randn(4, 3, 10, 10)
    with torch.no_grad():
        expected = pruned(images)
        fast = for_inference(copy.deepcopy(pruned).eval(), find_layers(graph))
        torch.testing.assert_close(fast(images), expected, rtol=1e-4, atol=1e-4)
    if torch.backends.mkldnn.is_available():
        assert isinstance(fast, torch.fx.GraphModule)


def test_layers_with_code_of_their_own_stay():
    class Scaled(nn.Conv2d):
        def forward(self, x):
            return F.conv2d(x, self.weight) * 2

    network = nn.Sequential(nn.Conv2d(2, 3, 1), Scaled(2, 3, 1))
    for layer in network:
        layer.weight = nn.Parameter(layer.weight[:, :0])
    replace_vanished(network, {}, {}, ())
    assert [isinstance(layer, STANDING_IN) for layer in network] == [True, False]


def test_norms_that_nothing_reads_are_not_computed_or_trained():
    """In front of a layer without outputs: several devices would wait for its gradients."""
    network = DenseBlock()
    graph = trace(network, torch.zeros(1, 3, 10, 10))
    pruned = graph.plan(network, graph.widths * ~graph.removable.groups).apply(network).train()
    assert isinstance(pruned.layers[0][0], Unread) and isinstance(pruned.bn, nn.BatchNorm2d)
    pruned(torch.randn(2, 3, 10, 10)).square().sum().backward()
    trained = {name: parameter.grad for name, parameter in pruned.named_parameters() if parameter.requires_grad}
    assert all(gradient is not None for gradient in trained.values()) and "layers.0.0.weight" not in trained
    assert pruned.state_dict().keys() >= {"layers.0.0.weight", "layers.0.0.running_mean"}
