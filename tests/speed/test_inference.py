import copy

import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.networks import mobilenet_v2, resnet20
from gnnrl_lightning.networks.copies import independent_copy
from gnnrl_lightning.speed.fusion import can_fuse
from gnnrl_lightning.speed.inference import fold_batch_norms, for_inference
from gnnrl_lightning.surgery.exactness import randomised
from gnnrl_lightning.surgery.layers import find_layers


class Shared(nn.Module):
    """A batch norm with an activation of its own, a plain one, and one that is not the only reader."""

    class Activated(nn.BatchNorm2d):
        def forward(self, input):
            return super().forward(input).relu()

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(i, 8, 3, bias=False) for i in (3, 8, 8))
        self.activated, self.plain, self.late = self.Activated(8), nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.activated(self.first(x))
        x = self.plain(self.second(x))
        y = self.third(x)
        return self.head((self.late(y) + y).mean((2, 3)))


def folded(network, x):
    graph = gnnrl_lightning.trace(network, x[:1].float())
    layers = find_layers(graph)
    fast = copy.deepcopy(network)
    fold_batch_norms(fast, layers)
    return fast


def norms(network):
    return [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize("make", [resnet20, mobilenet_v2])
def test_all_batch_norms_are_folded_and_nothing_changes(make):
    network = randomised(make(), torch.Generator().manual_seed(0)).eval()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    fast = folded(network.float(), x)
    assert not norms(fast) and norms(network)
    torch.testing.assert_close(fast.double()(x), network.double()(x), rtol=1e-4, atol=1e-4)


def test_only_plain_batch_norms_that_alone_read_a_layer_are_folded():
    network = randomised(Shared(), torch.Generator().manual_seed(0)).float().eval()
    x = torch.randn(2, 3, 8, 8)
    fast = folded(network, x)
    assert norms(fast) == ["activated", "late"]
    torch.testing.assert_close(fast(x), network(x), rtol=1e-4, atol=1e-4)


def test_bfloat16_is_close():
    network = resnet20().eval()
    x = torch.randn(4, 3, 32, 32)
    layers = find_layers(gnnrl_lightning.trace(network, x[:1]))
    fast = for_inference(copy.deepcopy(network), layers, torch.bfloat16)
    # Convolutions in bfloat16 are fused only where the processor has kernels for it.
    first = fast.fused_conv1.convolution if can_fuse(nn.Linear(1, 1).bfloat16()) else fast.conv1
    assert first.weight.dtype == torch.bfloat16 and first.weight.is_contiguous(memory_format=torch.channels_last)
    difference = fast(x.bfloat16()).float() - network(x)
    assert difference.abs().max() < 0.05 * network(x).abs().max()


class Named(nn.Module):
    """A convolution and its norm, under the names by which `names` calls them."""

    def __init__(self, names):
        super().__init__()
        self.layer, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)
        self.layers, self.norms, self.unregistered = (
            nn.ModuleList([self.layer]),
            nn.ModuleList([self.norm]),
            [self.norm],
        )
        self.names = names

    def forward(self, x):
        layer, norm = self.names(self)
        return self.head(norm(layer(x)).relu())


NAMES = [
    lambda net: (net.layers[0], net.norm),
    lambda net: (net.layer, net.norms[0]),
    lambda net: (net.layers[0], net.unregistered[0]),
]


@pytest.mark.parametrize("names", NAMES)
def test_norms_are_folded_whatever_names_the_code_calls_them_by(names):
    network = randomised(Named(names), torch.Generator().manual_seed(0)).float().eval()
    x = torch.randn(2, 3, 8, 8)
    fast = folded(network, x)
    assert not norms(fast) and not fast.unregistered[0].state_dict() and norms(network) == ["norm"]
    torch.testing.assert_close(fast(x), network(x), rtol=1e-4, atol=1e-4)


def keeps(network):
    """Hooks through which the norm's input goes."""
    network.layer.register_forward_hook(lambda module, args, output: setattr(network, "kept", output))
    network.norm.register_forward_pre_hook(lambda module, args: (network.kept,))


HOOKS = {
    "layer": lambda net: net.layer.register_forward_hook(lambda module, args, output: 2 * output),
    "norm": lambda net: net.norm.register_forward_hook(lambda module, args, output: 2 * output),
    "what the norm reads": lambda net: net.norm.register_forward_pre_hook(lambda module, args: (2 * args[0],)),
    "kept": keeps,
}


@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_of_layers_and_norms_are_called(hook):
    network = randomised(Named(NAMES[0]), torch.Generator().manual_seed(0)).float().eval()
    HOOKS[hook](network)
    x = torch.randn(2, 3, 8, 8)
    fast = for_inference(independent_copy(network), find_layers(gnnrl_lightning.trace(network, x[:1])))
    torch.testing.assert_close(fast(x), network(x), rtol=1e-4, atol=1e-4)
