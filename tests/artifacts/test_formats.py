"""Exported files: of networks of which groups are gone entirely, and of published networks in every format."""

from pathlib import Path

import pytest
import torch

from gnnrl_lightning import trace
from gnnrl_lightning.artifacts import artifact
from gnnrl_lightning.artifacts.formats import FORMATS, write_onnx, write_program
from gnnrl_lightning.exporting.program import exported
from gnnrl_lightning.networks.spec import NetworkSpec
from tests.support.delivered import delivered
from tests.support.exactness import random_weights
from tests.support.networks_branches import BRANCHES, Inception, Inverted, Residual

IMAGES = torch.randn(3, 3, 10, 10, generator=torch.Generator().manual_seed(5))

LAYERS = {"conv2d", "linear", "conv_transpose2d"}


def without_branches(kind):
    """A network without the groups that may go, and the number of its layers with MACs."""
    network = random_weights(kind()).float()
    graph = trace(network, IMAGES[:1])
    widths = graph.widths * ~graph.removable.groups
    return graph.plan(network, widths).apply(network).eval(), int((graph.cost.operator_macs(widths[None]) > 0).sum())


@pytest.mark.parametrize("kind", BRANCHES)
def test_programs_have_no_layer_of_a_branch_that_is_gone(kind):
    network, left = without_branches(kind)
    program, notes = exported(network, IMAGES)
    called = [
        node.target._schema.name.split("::")[1] for node in program.graph.nodes if hasattr(node.target, "_schema")
    ]
    assert sum(name in LAYERS for name in called) == left and notes["batch"] == "any"
    with torch.no_grad():
        torch.testing.assert_close(program.module()(IMAGES), network(IMAGES))


@pytest.mark.parametrize("kind", [Residual, Inception])
def test_onnx_files_have_no_layer_of_a_branch_that_is_gone(kind, tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    network, left = without_branches(kind)
    write_onnx(network, IMAGES, tmp_path / "model.onnx")
    nodes = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert sum(name in ("Conv", "ConvTranspose", "Gemm", "MatMul") for name in nodes) == left
    assert left < sum(isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)) for module in kind().modules())


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path):
    """PyTorch's own writer would abort the process."""
    (tmp_path / "model.pt2").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_program(without_branches(Residual)[0], IMAGES, tmp_path / "model.pt2")


@pytest.mark.parametrize("kind", [Residual, Inverted])
def test_networks_without_branches_can_be_pruned_further(kind):
    """Constants are no obstacle: what they are added to is still a group, and pruning stays exact."""
    network = without_branches(kind)[0]
    dense = trace(kind(), IMAGES[:1]).groups
    widths = [group.width for group in trace(network, IMAGES[:1]).groups]
    assert widths == [group.width for group in dense if group.name not in BRANCHES[kind][0]]


PUBLISHED = {
    "resnet56": ({}, 32),
    "torchvision.models.mobilenet_v2": ({"num_classes": 10}, 64),
    "torchvision.models.densenet121": ({"num_classes": 10}, 64),
    "torchvision.models.shufflenet_v2_x1_0": ({"num_classes": 10}, 64),
}
"""Networks -> their arguments, and the side of an image."""


@pytest.mark.slow
@pytest.mark.parametrize("path", PUBLISHED)
def test_published_networks_are_the_same_in_every_format_for_any_batch(path, tmp_path: Path):
    """Differences are relative to the largest output; int8 is within a tenth, with statistics of random images."""
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    torch.manual_seed(0)
    arguments, side = PUBLISHED[path]
    dense = NetworkSpec(path, arguments).build()
    with torch.no_grad():
        for _ in range(3):  # statistics of batch norms
            dense.train()(torch.randn(8, 3, side, side))
    pruned, folder = delivered(dense, (3, side, side), tmp_path / "pruned", [*FORMATS])
    for name in [each for each in FORMATS if each != "weights"]:
        network = artifact.load(folder, format=name)
        for batch in (1, 7):
            images = torch.randn(batch, 3, side, side)
            with torch.no_grad():
                found, exact = network(images), pruned(images)
            difference = float((found - exact).abs().max() / exact.abs().max())
            assert difference < (0.1 if name == "int8" else 1e-5), (name, batch, difference)
    size = {name: (folder / row.file).stat().st_size for name, row in FORMATS.items()}
    assert size["int8"] < size["onnx"] / 2
