"""Networks of timm and of torch.hub, built as the configuration does: traced, costed and cut exactly."""

import pytest
import torch

import gnnrl_lightning
from gnnrl_lightning.networks.spec import NetworkSpec
from tests.support.exactness import check, macs_of, params_of, random_weights, random_widths

TIMM = {
    "resnet10t": {},
    "mobilenetv3_small_050": {},
    "ghostnet_050": {},
    "regnetx_002": {},
    "densenet121": {"block_config": (2, 2)},
    "convnext_atto": {},
    "vit_tiny_patch16_224": {"img_size": 64, "depth": 2},
    "swin_tiny_patch4_window7_224": {"img_size": 64, "window_size": 4, "depths": (1, 2), "num_heads": (3, 6)},
}
"""One small network of each family; no weights are fetched."""

HUB = """
dependencies = ["torch"]

from torch import nn


def small(channels=8, classes=10):
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True),
        nn.Conv2d(channels, 6, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes),
    )
"""


def check_network(network, side):
    """Exact outputs and costs at random widths; returns the graph."""
    network = random_weights(network)
    inputs = (torch.randn(2, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),)
    graph = gnnrl_lightning.trace(network, inputs, self_test=False)
    assert int(graph.cost.macs(graph.widths)) == macs_of(network, inputs)
    assert int(graph.cost.params(graph.widths)) == params_of(network)
    generator = torch.Generator().manual_seed(1)
    check(graph, network, inputs, random_widths(graph, generator), generator)
    return graph


@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    pytest.importorskip("timm")
    arguments = {"model_name": name, "pretrained": False, "num_classes": 10, **TIMM[name]}
    graph = check_network(NetworkSpec("timm.create_model", arguments).build(), 64)
    reasons = {group.reason for group in graph.frozen}
    assert reasons == {"is the input of the network", "is an output of the network"}
    assert int(graph.cost.macs(graph.smallest)) < 0.05 * int(graph.cost.macs(graph.widths))


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "vit_tiny_patch16_224"])
def test_half_of_a_vision_transformer_goes_with_heads_and_hidden_channels(name):
    """The tokens keep all of their channels."""
    timm = pytest.importorskip("timm")
    network, x = random_weights(timm.create_model(name, depth=2)), torch.randn(1, 3, 224, 224, dtype=torch.float64)
    graph = gnnrl_lightning.trace(network, x, self_test=False)
    groups = {group.name: number for number, group in enumerate(graph.groups)}
    assert graph.groups[groups["blocks.0.attn.qkv"]].width == 3
    widths = graph.widths.clone()
    for i in range(2):
        widths[groups[f"blocks.{i}.attn.qkv"]] = 1
        widths[groups[f"blocks.{i}.mlp.fc1"]] //= 2
    assert int(graph.cost.macs(widths)) < 0.5 * int(graph.cost.macs(graph.widths))
    check(graph, network, (x,), widths, torch.Generator().manual_seed(0))


def test_torch_hub(tmp_path):
    (tmp_path / "hubconf.py").write_text(HUB)
    arguments = {"repo_or_dir": str(tmp_path), "model": "small", "source": "local", "channels": 5}
    graph = check_network(NetworkSpec("torch.hub.load", arguments).build(), 8)
    assert [(group.name, group.width) for group in graph.groups] == [("0", 5), ("3", 6)]
