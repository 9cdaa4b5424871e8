import copy
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gnnrl_lightning import trace
from gnnrl_lightning.calibration import least_squares
from gnnrl_lightning.networks import not_finite
from gnnrl_lightning.repair.batchnorm import reestimate_batch_norm
from gnnrl_lightning.repair.refit import positions_for, record, refit
from gnnrl_lightning.surgery.layers import find_layers
from tests.support.networks_readers import READERS, correlated, half, traced
from tests.support.networks_zoo import ZOO, conv

ALL = 10**6


def refitted(network, images, plan_of, **options):
    graph = trace(network, images[:1])
    plan = plan_of(graph, network)
    sliced, pruned = plan.apply(network), plan.apply(network)
    layers = find_layers(graph)
    refit(pruned, layers, plan.selection, record(network, layers, images, **{"per_example": ALL, **options}))
    with torch.no_grad():
        return network(images), sliced(images), pruned(images), pruned


def everything(graph, network):
    return graph.plan(network, graph.widths)


def error(output, dense):
    return float((output - dense).square().mean())


@pytest.mark.parametrize("name", READERS)
def test_with_all_channels_nothing_changes(name):
    network, _, images = traced(name)
    dense, _, output, pruned = refitted(network, images, everything)
    torch.testing.assert_close(pruned.reader.weight, network.reader.weight, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(output, dense, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", READERS)
def test_the_error_is_below_that_of_slicing(name):
    network, _, images = traced(name)
    dense, sliced, output, _ = refitted(network, images, half)
    assert error(output, dense) < 0.7 * error(sliced, dense)


def test_against_a_second_solver(monkeypatch):
    monkeypatch.setattr(least_squares, "RIDGE", 1e-9)
    network, _, images = traced("conv")
    dense, _, output, pruned = refitted(network, images, half)
    with torch.no_grad():
        x = F.unfold(pruned.stem(images).relu(), 3, padding=1).transpose(1, 2).reshape(-1, 36).numpy()
    dense, output = (item.flatten(2).transpose(1, 2).reshape(-1, 6).numpy() for item in (dense, output))
    design = np.concatenate([x, np.ones((len(x), 1))], 1)
    np.testing.assert_allclose(output, design @ np.linalg.lstsq(design, dense, rcond=None)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["conv", "no_bias", "norm", "grouped", "flat"])
def test_samples_instead_of_gram_matrices(name, monkeypatch):
    """The two forms of ridge regression are one."""
    network, _, images = traced(name)
    images = images[:3, :, :4, :4] if name != "flat" else images[:20]
    output = refitted(network, images, half)[2]
    monkeypatch.setattr(least_squares, "LONGEST_GRAM", 1)
    monkeypatch.setattr(torch, "linspace", lambda start, stop, count: torch.arange(start, stop + 1))
    torch.testing.assert_close(refitted(network, images, half)[2], output, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["conv", "norm", "flat"])
def test_inputs_that_do_not_vary_leave_the_weights(name, monkeypatch):
    """One position of one example, in either form."""
    network, _, images = traced(name)
    found = []
    for longest in (least_squares.LONGEST_GRAM, 1):
        monkeypatch.setattr(least_squares, "LONGEST_GRAM", longest)
        found.append(refitted(network, images[:1], half, per_example=1)[2])
    assert found[0].isfinite().all() and found[1].isfinite().all()


def test_the_pull_grows_where_samples_are_few(monkeypatch):
    """35 samples of 36 inputs: interpolation would be far worse than slicing."""
    network, _, images = traced("conv")
    monkeypatch.setattr(least_squares, "LONGEST_GRAM", 35)
    dense, sliced, output, _ = refitted(network, images, half)
    assert error(output, dense) < 1.5 * error(sliced, dense)
    monkeypatch.setattr(least_squares, "ENOUGH", 0)
    assert error(refitted(network, images, half)[2], dense) > 5 * error(sliced, dense)


def test_chunks_change_nothing(monkeypatch):
    network, _, images = traced("grouped")
    output = refitted(network, images, half)[2]
    monkeypatch.setattr(least_squares, "CHUNK", 1)
    torch.testing.assert_close(refitted(network, images, half)[2], output, rtol=1e-8, atol=1e-10)


class Block(nn.Module):
    """Two residual blocks; what the first one misses, the second one can make up for."""

    def __init__(self, norm):
        super().__init__()
        self.stem = conv(3, 6)
        self.inner = nn.ModuleList(conv(6, 8) for _ in range(2))
        self.outer = nn.ModuleList(conv(8, 6, bias=not norm) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(6) if norm else nn.Identity() for _ in range(2))
        self.head = nn.Conv2d(6, 6, 1)

    def forward(self, x):
        x = self.stem(x)
        for inner, outer, norm in zip(self.inner, self.outer, self.norms, strict=True):
            y = norm(outer(inner(x).relu()))
            y += x
            x = y.relu()
        return self.head(x)


def narrow(graph, network):
    widths = torch.tensor([4 if group.name.startswith("inner") else group.width for group in graph.groups])
    return graph.plan(network, widths)


@pytest.mark.parametrize("norm", [False, True])
def test_the_end_of_a_branch_makes_up_for_the_shortcut(norm):
    """The last convolution of the second block is the least-squares fit of the dense sum minus the shortcut."""
    network = Block(norm).double()
    images = correlated(40).double()
    reestimate_batch_norm(network.train(), [images])
    network.eval()
    _, _, _, pruned = refitted(network, images, narrow)
    seen = {}

    def keep(net, into):
        for name in ("inner.1", "outer.1", "norms.1"):
            net.get_submodule(name).register_forward_hook(
                lambda module, args, output, name=name: into.update({name: (args[0], output.clone())})
            )

    for key, net in (("dense", network), ("pruned", pruned)):
        keep(copy.deepcopy(net), seen.setdefault(key, {}))
        hooked = copy.deepcopy(net)
        keep(hooked, seen[key])
        with torch.no_grad():
            hooked(images)
    shortcut = seen["pruned"]["inner.1"][0]
    target = seen["dense"]["norms.1"][1] + seen["dense"]["inner.1"][0] - shortcut
    x = F.unfold(seen["pruned"]["outer.1"][0], 3, padding=1).transpose(1, 2).reshape(-1, 36).numpy()
    design = np.concatenate([x, np.ones((len(x), 1))], 1)
    target, mine = (
        item.flatten(2).transpose(1, 2).reshape(-1, 6).numpy() for item in (target, seen["pruned"]["norms.1"][1])
    )
    best = design @ np.linalg.lstsq(design, target, rcond=None)[0]
    assert ((mine - target) ** 2).mean() == pytest.approx(((best - target) ** 2).mean(), rel=2e-2)


def test_branches_whose_norms_are_zero_are_fitted():
    """As in networks that begin so: their last convolutions make up for what the shortcut has lost."""
    network = Block(norm=True).double()
    for norm in network.norms:
        nn.init.zeros_(norm.weight)
    images = correlated(40).double()
    reestimate_batch_norm(network.train(), [images])
    network.eval()
    dense, sliced, output, pruned = refitted(network, images, half)
    assert not_finite(pruned.state_dict()) is None
    assert all(norm.weight.abs().min() > 0 for norm in pruned.norms)
    assert error(output, dense) < 0.6 * error(sliced, dense)


class ReadTwice(nn.Module):
    """The output of the last convolution is added to the shortcut, and read on its own."""

    def __init__(self, early):
        super().__init__()
        self.stem, self.inner, self.outer, self.early = conv(3, 6), conv(6, 8), conv(8, 6), early

    def forward(self, x):
        x = self.stem(x)
        y = self.outer(self.inner(x.relu()).relu())
        alone = y.sigmoid() if self.early else None
        z = x + y
        return torch.cat([z, y.sigmoid() if alone is None else alone], 1)


@pytest.mark.parametrize("early", [False, True])
def test_what_others_read_too_is_fitted_for_itself(early):
    network = ReadTwice(early).double().eval()
    images = correlated(30).double()
    graph = trace(network, images[:1])
    plan = graph.plan(network, torch.tensor([4 if group.name == "inner" else group.width for group in graph.groups]))
    pruned = plan.apply(network)
    with torch.no_grad():
        pruned.stem.weight.add_(0.3)  # an error of the shortcut that the branch could make up for
        layers = {name: layer for name, layer in find_layers(graph).items() if name != "stem.weight"}
        refit(pruned, layers, plan.selection, record(network, layers, images, ALL))
        alone = pruned.outer(pruned.inner(pruned.stem(images).relu()).relu())
        wanted = network.outer(network.inner(network.stem(images).relu()).relu())
    assert error(alone, wanted) < 0.2 * float(wanted.var())
    torch.testing.assert_close(alone.mean((0, 2, 3)), wanted.mean((0, 2, 3)))


def test_training_mode_sees_the_statistics_that_evaluation_mode_uses():
    network = Block(norm=True).double()
    images = correlated(40).double()
    reestimate_batch_norm(network.train(), [images])
    network.eval()
    _, _, output, pruned = refitted(network, images, narrow)
    with torch.no_grad():
        torch.testing.assert_close(pruned.train()(images), output, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "depthwise",
    [nn.Conv2d(4, 4, 3, groups=4), nn.ConvTranspose2d(4, 4, (3, 4), 2, (1, 2), (0, 1), groups=4, dilation=(2, 1))],
    ids=["forward", "transposed"],
)
def test_depthwise_filters_are_fitted_to_what_they_read(depthwise):
    """The channel before the depthwise filter is halved on the way: the filter doubles."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), depthwise, nn.Conv2d(4, 2, 1)).double()
    images = correlated(20).double()
    graph = trace(network, images[:1])
    plan = graph.plan(network, graph.widths)
    pruned = plan.apply(network)
    layers = {name: layer for name, layer in find_layers(graph).items() if name != "0.weight"}
    with torch.no_grad():
        pruned[0].weight.mul_(0.5)
    refit(pruned, layers, plan.selection, record(network, layers, images, ALL))
    network.requires_grad_(False)
    pruned.requires_grad_(False)
    torch.testing.assert_close(pruned[1].weight, 2 * network[1].weight, rtol=5e-2, atol=1e-2)
    assert error(pruned(images), network(images)) < 1e-5 * float(network(images).var())


@pytest.mark.parametrize(
    "name", ["DenseConcat", "SqueezeExcitation", "GroupedShuffle", "Reused", "C2f", "Slopes", "ThreeBranches"]
)
def test_whole_networks(name):
    case = ZOO[name]
    torch.manual_seed(0)
    network = case.build().eval()
    images = correlated(40)

    def three_quarters(graph, net):
        return graph.plan(net, (graph.widths * 3 // 4).clamp(min=1))

    dense, sliced, output, _ = refitted(network, images, three_quarters)
    assert error(output, dense) < error(sliced, dense)


class Mixer(nn.Module):
    """Layers that mix the 16 positions of each channel, the second one added to a shortcut."""

    def __init__(self):
        super().__init__()
        self.stem, self.hidden, self.tokens = nn.Conv2d(3, 12, 2, 2), nn.Linear(16, 10), nn.Linear(10, 16)
        self.channels, self.head = nn.Linear(12, 12), nn.Linear(12, 5)

    def forward(self, x):
        x = self.stem(x).flatten(2)
        x = x + self.tokens(self.hidden(x).relu())
        return self.head(self.channels(x.transpose(1, 2)).relu().mean(1))


def test_layers_whose_samples_are_channels_stay():
    torch.manual_seed(0)
    network, images = Mixer().eval(), correlated(40)
    plans = []

    def half_of_the_channels(graph, net):
        plans.append(graph.plan(net, (graph.widths // 2).clamp(min=1)))
        return plans[0]

    dense, sliced, output, pruned = refitted(network, images, half_of_the_channels)
    assert pruned.stem.out_channels == 6 and pruned.hidden.out_features == 5
    cut = plans[0].apply(network)
    assert torch.equal(pruned.hidden.weight, cut.hidden.weight)
    assert torch.equal(pruned.tokens.weight, cut.tokens.weight)
    assert not torch.equal(pruned.channels.weight, cut.channels.weight)
    assert error(output, dense) < error(sliced, dense)


def test_the_dense_network_and_its_mode_are_left_as_they_are():
    network, graph, images = traced("norm")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    plan = half(graph, network)
    pruned = plan.apply(network).train()
    network.train()
    layers = find_layers(graph)
    refit(pruned, layers, plan.selection, record(network, layers, images))
    assert network.training and pruned.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in pruned.parameters())


class Counting(TorchDispatchMode):
    """Counts the operators that run on real tensors."""

    def __init__(self):
        super().__init__()
        self.ran = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.ran[func.overloadpacket] += not args or not isinstance(args[0], torch.Tensor) or not args[0].is_meta
        return func(*args, **(kwargs or {}))


def test_a_layer_that_waits_for_its_sum_runs_once():
    """Stem, two inner and two outer convolutions and the head; the first run of an outer one would be thrown away."""
    network, images = Block(True).eval(), correlated(8)
    graph = trace(network, images[:1])
    layers, plan = find_layers(graph), narrow(graph, network)
    recording = record(network, layers, images)
    assert sum(target.is_sum for target in recording.targets.values()) == 2
    pruned = plan.apply(network)
    with Counting() as counting:
        refit(pruned, layers, plan.selection, recording)
    assert counting.ran[torch.ops.aten.convolution] == 6
    assert sum(counting.ran[name] for name in (torch.ops.aten.native_batch_norm, torch.ops.aten.cudnn_batch_norm)) == 2


@pytest.mark.parametrize(("examples", "positions"), [(1, 48), (1024, 48), (1025, 47), (4096, 12), (10**6, 1)])
def test_many_examples_are_sampled_at_fewer_positions(examples, positions):
    assert positions_for(examples) == positions
