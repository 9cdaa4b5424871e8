"""Exported files of networks of which groups are gone entirely."""

from pathlib import Path

import pytest
import torch

from gnnrl_lightning import trace
from gnnrl_lightning.exporting.program import exported
from gnnrl_lightning.job.formats import write_onnx
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


@pytest.mark.parametrize("kind", [Residual, Inverted])
def test_networks_without_branches_can_be_pruned_further(kind):
    """Constants are no obstacle: what they are added to is still a group, and pruning stays exact."""
    network = without_branches(kind)[0]
    dense = trace(kind(), IMAGES[:1]).groups
    widths = [group.width for group in trace(network, IMAGES[:1]).groups]
    assert widths == [group.width for group in dense if group.name not in BRANCHES[kind][0]]
