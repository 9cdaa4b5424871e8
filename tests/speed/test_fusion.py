import copy
import operator

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gnnrl_lightning
from gnnrl_lightning import networks
from gnnrl_lightning.networks import resnet20
from gnnrl_lightning.speed.fusion import FusedConvolution, can_fuse, fuse_convolutions
from gnnrl_lightning.speed.inference import fold_batch_norms, for_inference
from gnnrl_lightning.surgery.exactness import randomised
from gnnrl_lightning.surgery.layers import find_layers

pytestmark = pytest.mark.skipif(not can_fuse(nn.Linear(1, 1)), reason="needs oneDNN")


class Net(nn.Module):
    """Two convolutions and a forward pass that is given."""

    def __init__(self, forward):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.inplace = nn.ReLU(), nn.ReLU(inplace=True)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def fused(network):
    return [module for module in network.modules() if isinstance(module, FusedConvolution)]


def compare(network, x):
    """Fuses the network and checks that its outputs are unchanged."""
    with torch.inference_mode():
        expected = network(x.clone())
        made = fuse_convolutions(network.eval())
        torch.testing.assert_close(made(x.clone()), expected, rtol=1e-5, atol=1e-5)
    return made


FUSED = {
    "module": lambda net, x: net.relu(net.a(x)),
    "function": lambda net, x: F.relu(net.a(x)),
    "in place": lambda net, x: F.relu(net.a(x), inplace=True),
    "method": lambda net, x: net.a(x).relu(),
    "relu6": lambda net, x: F.relu6(net.a(3 * x)),
    "hardswish": lambda net, x: F.hardswish(net.a(3 * x)),
    "silu": lambda net, x: F.silu(net.a(x)),
    "sum": lambda net, x: net.a(x) + x,
    "sum the other way": lambda net, x: torch.add(x, net.a(x)),
    "sum with activation": lambda net, x: F.relu(x + net.a(x)),
    "sum with relu6": lambda net, x: F.relu6(3 * x + net.a(3 * x)),
    "sum with hardswish": lambda net, x: F.hardswish(x + net.a(3 * x)),
    "sum with silu": lambda net, x: F.silu(x + net.a(x)),
    "sum in place": lambda net, x: net.inplace(operator.iadd(net.a(x), x)),
    "broadcast": lambda net, x: net.relu(net.a(x) + x.mean((2, 3), keepdim=True)),
    "converted": lambda net, x: F.hardswish(net.a(x) + x.double()),
}


@pytest.mark.parametrize("name", FUSED)
def test_what_follows_a_convolution_is_fused_and_the_outputs_stay(name):
    made = compare(Net(FUSED[name]), torch.randn(2, 4, 6, 6))
    assert len(fused(made)) == 1
    assert not any(node.op in ("call_function", "call_method") and "relu" in node.name for node in made.graph.nodes)


SEPARATE = {
    "another reader": lambda net, x: F.relu(y := net.a(x)) + y.mean(),
    "another reader of the sum": lambda net, x: (y := net.a(x) * 2) + F.relu(y),
    "written into": lambda net, x: (y := net.a(x), x.mul_(2), F.relu(y))[2],
    "an alias is written into": lambda net, x: (y := x * 1, z := y, y := operator.iadd(y, net.a(x)), y + z)[3],
    "another is written into": lambda net, x: (y := x * 1, operator.iadd(y, net.a(x)), y * 3)[2],
    "to itself": lambda net, x: (y := net.a(x)) + y,
    "a number": lambda net, x: net.a(x) + 1,
    "scaled": lambda net, x: torch.add(net.a(x), x, alpha=2),
}


@pytest.mark.parametrize("name", SEPARATE)
def test_what_would_change_is_not_fused(name):
    assert not fused(compare(Net(SEPARATE[name]), torch.randn(2, 4, 6, 6)))


def test_a_shortcut_that_is_computed_later_is_added():
    made = compare(Net(lambda net, x: F.relu(net.a(x) + net.b(x))), torch.randn(2, 4, 6, 6))
    assert len(fused(made)) == 1
    # ... but not where the convolution would move behind what writes into its input.
    made = compare(Net(lambda net, x: net.a(x) + net.b(net.inplace(x))), torch.randn(2, 4, 6, 6))
    assert [name for name, _ in made.named_children() if name.startswith("fused")] == ["fused_b"]


@pytest.mark.parametrize(
    "change",
    [
        {"padding": "same"},
        {"padding": 1, "padding_mode": "circular"},
    ],
)
def test_other_kinds_of_padding_are_left(change):
    network = Net(FUSED["module"])
    network.a = nn.Conv2d(4, 4, 3, **change)
    assert not fused(compare(network, torch.randn(2, 4, 6, 6)))


def test_subclasses_and_modules_with_hooks_are_left():
    class Doubled(nn.Conv2d):
        def forward(self, input):
            return 2 * super().forward(input)

    network = Net(FUSED["module"])
    network.a = Doubled(4, 4, 3)
    assert not fused(compare(network, torch.randn(2, 4, 6, 6)))
    network = Net(FUSED["module"])
    network.relu.register_forward_hook(lambda module, args, output: output + 1)
    assert not fused(compare(network, torch.randn(2, 4, 6, 6)))


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (4, 1), (1, 4), (3, 5)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_few_channels_in_any_layout(inputs, outputs, layout):
    network = Net(lambda net, x: F.relu(net.a(x) + net.b(x).transpose(2, 3)))
    network.a, network.b = (nn.Conv2d(inputs, outputs, 3, padding=1) for _ in range(2))
    compare(network, torch.randn(2, inputs, 6, 6).to(memory_format=layout))


def test_the_smallest_candidate_of_a_network_is_fused_too():
    network = resnet20().eval()
    x = torch.randn(2, 3, 32, 32)
    graph = gnnrl_lightning.trace(network, x[:1])
    pruned = graph.plan(network, graph.smallest).apply(network).eval()
    with torch.inference_mode():
        expected = pruned(x)
        torch.testing.assert_close(for_inference(pruned, find_layers(graph))(x), expected, rtol=1e-4, atol=1e-4)


def test_a_network_with_hooks_of_its_own_keeps_them():
    network = Net(FUSED["module"])
    network.register_forward_hook(lambda module, args, output: output + 1)
    assert fuse_convolutions(network) is network


def test_what_hooks_keep_is_that_of_the_present_inputs():
    """Code that reads it is not traced: torch.fx would make a constant of what the last inputs have left."""
    network = Net(lambda net, x: (net.relu(net.a(x)), net.kept)[1] + net.b(x))
    network.relu.register_forward_hook(lambda module, args, output: setattr(network, "kept", output))
    network(torch.randn(2, 4, 6, 6))
    assert not fused(compare(network, torch.randn(2, 4, 6, 6)))


def test_geometry_and_one_image_without_a_batch():
    network = Net(FUSED["module"])
    network.a = nn.Conv2d(4, 6, (3, 5), stride=(1, 2), padding=(2, 1), dilation=(2, 1), groups=2, bias=False)
    assert len(fused(compare(network, torch.randn(2, 4, 9, 11)))) == 1
    assert len(fused(compare(Net(FUSED["sum with activation"]), torch.randn(4, 6, 6)))) == 1


def test_networks_that_cannot_be_traced_stay_as_they_are():
    network = Net(lambda net, x: net.relu(net.a(x)) if x.sum() > 0 else x)
    assert fuse_convolutions(network) is network


def test_double_precision_is_left():
    network = Net(FUSED["module"]).double()
    assert fuse_convolutions(network) is network


@pytest.mark.parametrize(("name", "count"), [("resnet20", 19), ("mobilenet_v2", 35), ("mobilenet_v1", 27)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whole_networks(name, count, dtype):
    network = randomised(getattr(networks, name)(), torch.Generator().manual_seed(0)).float().eval()
    x = torch.randn(2, 3, 32, 32)
    layers = find_layers(gnnrl_lightning.trace(network, x[:1]))
    with torch.inference_mode():
        expected = network(x)
        plain = copy.deepcopy(network)
        fold_batch_norms(plain, layers)
        rounded = (plain.to(dtype)(x.to(dtype)).float() - expected).abs().max()
        fusible = can_fuse(nn.Linear(1, 1).to(dtype))  # oneDNN has bfloat16 kernels on some processors only
        made = for_inference(network, layers, dtype)
        difference = (made(x.to(dtype)).float() - expected).abs().max()
    assert len(fused(made)) >= count if fusible else not fused(made)
    assert difference <= 1.5 * rounded + 1e-5 * expected.abs().max()
