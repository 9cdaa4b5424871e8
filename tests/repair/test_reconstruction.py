import numpy as np
import pytest
import torch

from gnnrl_lightning import trace
from gnnrl_lightning.calibration import least_squares
from gnnrl_lightning.calibration import moments as statistics
from gnnrl_lightning.calibration.moments import collect_moments
from gnnrl_lightning.calibration.observe import ContractionObserver, Patches, forward_form
from gnnrl_lightning.repair.reconstruction import reconstruct, solve_kept
from gnnrl_lightning.surgery.layers import find_layers
from tests.support.networks_readers import READERS, correlated, half, traced
from tests.support.networks_zoo import ZOO

ALL = 10**6
"""More positions than any map has: the moments are those of every position."""


def repaired(name, plan_of=half, per_example=ALL):
    network, graph, images = traced(name)
    plan = plan_of(graph, network)
    layers = find_layers(graph)
    moments = collect_moments(network, layers, [images], per_example)
    sliced, pruned = plan.apply(network), plan.apply(network)
    reconstruct(network, pruned, layers, moments, plan.selection)
    with torch.no_grad():
        return network(images), sliced(images), pruned(images), network, pruned, images, plan


@pytest.mark.parametrize("name", READERS)
def test_with_all_channels_nothing_changes(name):
    dense, _, output, network, pruned, *_ = repaired(name, lambda graph, net: graph.plan(net, graph.widths))
    torch.testing.assert_close(pruned.reader.weight, network.reader.weight, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(output, dense, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", READERS)
def test_the_error_is_below_that_of_slicing(name):
    dense, sliced, output, *_ = repaired(name)
    error, before = ((item - dense).square().mean() for item in (output, sliced))
    assert error < 0.7 * before


@pytest.mark.parametrize("name", READERS)
def test_against_a_second_solver(name, monkeypatch):
    monkeypatch.setattr(least_squares, "RIDGE", 1e-9)
    dense, _, output, _, pruned, images, _ = repaired(name)
    with torch.no_grad():
        small = pruned.stem(images).relu()
        if name == "flat":
            x = small.flatten(1)
        elif name == "tokens":
            x = small.flatten(2).transpose(1, 2).reshape(-1, small.shape[1])
        else:
            seen = {}
            with ContractionObserver({"reader": pruned.reader.weight}, lambda name, call: seen.update(call)):
                pruned(images)
            form = forward_form(seen)
            patches = Patches(form, ALL, torch.Generator())
            x = patches.inputs(form["input"])
            dense, output = patches.outputs(dense), patches.outputs(output)
    if name == "flat":
        assert np.linalg.matrix_rank(x) < x.shape[1]  # fewer images than inputs: the fit is exact
        torch.testing.assert_close(output, dense, rtol=1e-3, atol=1e-3)
        return
    dense, output, x = dense.reshape(len(x), -1).numpy(), output.reshape(len(x), -1).numpy(), x.numpy()
    if name == "grouped":
        blocks = np.split(x, 2, 1)
    else:
        blocks = [x, x]
    for block, target, mine in zip(blocks, np.split(dense, 2, 1), np.split(output, 2, 1), strict=True):
        design = block if name == "no_bias" else np.concatenate([block, np.ones((len(block), 1))], 1)
        solution = np.linalg.lstsq(design, target, rcond=None)[0]
        np.testing.assert_allclose(mine, design @ solution, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["conv", "flat", "transposed"])
def test_long_inputs_are_reconstructed_from_the_channels(name, monkeypatch):
    monkeypatch.setattr(statistics, "MAX_VECTOR", 16)
    dense, sliced, output, *_ = repaired(name)
    assert (output - dense).square().mean() < 0.8 * (sliced - dense).square().mean()
    dense, _, output, *_ = repaired(name, lambda graph, net: graph.plan(net, graph.widths))
    torch.testing.assert_close(output, dense, rtol=1e-6, atol=1e-8)


def test_by_hand():
    """Two inputs that are equal: the one that is kept takes the weight of both."""
    weight, mean = torch.tensor([[1.0, 2.0]]).double(), torch.tensor([3.0, 3.0]).double()
    solved, shift = solve_kept(weight, mean, torch.ones(2, 2).double(), torch.tensor([0]), samples=1000)
    # (w C[:, 0] + l w_0) / (C_00 + l) with l = 0.001
    assert solved.item() == pytest.approx((3 + 0.001) / 1.001)
    assert shift.item() == pytest.approx(9 - 3 * solved.item())


@pytest.mark.parametrize("name", ["DenseConcat", "SqueezeExcitation", "GroupedShuffle", "Reused", "C2f", "Slopes"])
def test_whole_networks(name):
    case = ZOO[name]
    torch.manual_seed(0)
    network = case.build().eval()
    images = correlated(40)
    graph = trace(network, images[:1])
    plan = graph.plan(network, (graph.widths * 3 // 4).clamp(min=1))
    layers = find_layers(graph)
    pruned, sliced = plan.apply(network), plan.apply(network)
    reconstruct(network, pruned, layers, collect_moments(network, layers, [images], ALL), plan.selection)
    with torch.no_grad():
        dense = network(images)
        assert (pruned(images) - dense).square().mean() < (sliced(images) - dense).square().mean()
