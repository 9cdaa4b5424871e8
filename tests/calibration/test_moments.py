import numpy as np
import pytest
import torch
from torch import nn

from gnnrl_lightning import trace
from gnnrl_lightning.calibration import moments as statistics
from gnnrl_lightning.calibration.moments import collect_moments
from gnnrl_lightning.surgery.layers import find_layers
from tests.support.networks_readers import traced
from tests.support.networks_zoo import ZOO


def reader_moments(name, per_example=10**6, **options):
    network, graph, images = traced(name)
    moments = collect_moments(network, find_layers(graph), images.split(7), per_example, **options)["reader.weight"]
    with torch.no_grad():
        return moments, network.stem(images).relu(), network


def test_moments_of_a_convolution_are_those_of_its_unfolded_input():
    moments, x, _ = reader_moments("strided")
    vectors = nn.functional.unfold(x, 3, dilation=2, padding=2, stride=2).transpose(1, 2).reshape(-1, 72)
    np.testing.assert_allclose(moments.mean[0], vectors.mean(0), rtol=1e-10)
    np.testing.assert_allclose(moments.covariance[0], np.cov(vectors.T, bias=True), rtol=1e-7, atol=1e-12)


def test_moments_of_tokens():
    moments, x, _ = reader_moments("tokens")
    vectors = x.flatten(2).transpose(1, 2).reshape(-1, 8)
    np.testing.assert_allclose(moments.covariance[0], np.cov(vectors.T, bias=True), rtol=1e-7, atol=1e-12)


def test_moments_of_a_grouped_convolution_are_block_by_block():
    moments, x, _ = reader_moments("grouped")
    vectors = nn.functional.unfold(x[:, 4:], 3, padding=1).transpose(1, 2).reshape(-1, 36)
    assert moments.covariance.shape == (2, 36, 36)
    np.testing.assert_allclose(moments.covariance[1], np.cov(vectors.T, bias=True), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(("name", "full"), [("conv", 72), ("flat", 512), ("transposed", 72)])
def test_long_inputs_share_the_covariance_of_the_channels(name, full, monkeypatch):
    assert reader_moments(name)[0].covariance.shape == (1, full, full)
    monkeypatch.setattr(statistics, "MAX_VECTOR", full - 1)
    moments, x, _ = reader_moments(name)
    assert moments.covariance.shape == (1, 8, 8)
    if name != "transposed":
        vectors = x.flatten(2).transpose(1, 2).reshape(-1, 8)
        np.testing.assert_allclose(moments.covariance[0], np.cov(vectors.T, bias=True), rtol=1e-7, atol=1e-12)


def test_what_is_too_long_has_no_moments(monkeypatch):
    monkeypatch.setattr(statistics, "MAX_VECTOR", 7)
    monkeypatch.setattr(statistics, "MOST_CHANNELS", 7)
    for name in ("conv", "flat", "tokens"):
        network, graph, images = traced(name)
        assert "reader.weight" not in collect_moments(network, find_layers(graph), [images])


def test_depthwise_convolutions_have_no_moments():
    case = ZOO["DepthwiseMultiplier"]
    network = case.build().eval()
    graph = trace(network, case.inputs())
    moments = collect_moments(network, find_layers(graph), [case.inputs()[0]])
    assert set(moments) == {"stem.weight", "point.weight", "head.weight"}


def test_float32_suffices_where_the_mean_is_large():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    x = torch.randn(1000, 3) + 1000
    moments = collect_moments(network, find_layers(trace(network, x[:1])), x.split(100))["0.weight"]
    np.testing.assert_allclose(moments.covariance[0], np.cov(x.double().T, bias=True), atol=1e-3)


def test_the_network_is_left_as_it_is():
    network, graph, images = traced("norm")
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    collect_moments(network, find_layers(graph), [images])
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_memory_does_not_depend_on_the_number_of_images():
    small = reader_moments("conv", per_example=1)[0]
    assert small.covariance.shape == reader_moments("conv")[0].covariance.shape
