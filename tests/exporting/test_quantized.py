"""Networks in int8: weights and activations are integers, the file is smaller, and it computes what was quantised."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from gnnrl_lightning.artifacts import artifact
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.exporting.quantized import quantized, sums_saturate
from gnnrl_lightning.trees import call, tensors
from tests.support.delivered import Image, Nested, delivered

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


class FixedBatch(nn.Module):
    """Its code says that there is one image."""

    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

    def forward(self, x):
        return self.last(self.conv(x).relu().mean((2, 3)).view(1, -1))


def test_rounding_is_that_of_the_formula():
    """A linear layer by hand: scales of the weights' rows are max / 127, those of activations the range / 255.

    Where sums saturate, the scales of the weights are max / 64: 2 * 255 * 64 fits into 16 bits.
    """
    largest = 64 if sums_saturate() else 127
    layer = nn.Linear(4, 3, bias=False).eval()
    with torch.no_grad():
        layer.weight.copy_(torch.randn(3, 4, generator=torch.Generator().manual_seed(2)))
    examples = torch.randn(64, 4, generator=torch.Generator().manual_seed(3))
    found = quantized(layer, examples)

    def rounded(values, low, high):
        step = (high - low) / 255
        zero = torch.round(-low / step)
        return ((values / step).round() + zero).clamp(0, 255).sub(zero) * step

    scales = layer.weight.detach().abs().amax(1, keepdim=True) / largest
    weights = (layer.weight.detach() / scales).round().clamp(-largest, largest) * scales
    inputs = rounded(examples, examples.min(), examples.max())
    outputs = examples @ layer.weight.detach().T
    step = (outputs.max() - outputs.min()) / 255
    expected = rounded(inputs @ weights.T, outputs.min(), outputs.max())
    difference = (found(examples) - expected).abs().max()
    assert difference <= step * 1.01  # a sum on the edge between two steps may go either way
    assert (found(examples) - outputs).abs().max() > 0


def test_weights_are_stored_as_int8_and_the_file_is_smaller(tmp_path):
    pruned, folder = delivered(Image(), (3, 10, 10), tmp_path / "pruned", ["onnx", "int8"])
    model = onnx.load(folder / "model.int8.onnx")
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1}
    assert kinds and set(kinds.values()) == {onnx.TensorProto.INT8}
    weights = sum(parameter.numel() for parameter in pruned.parameters() if parameter.dim() > 1)
    assert sum(np.prod(tensor.dims) for tensor in model.graph.initializer if tensor.name in kinds) == weights


def test_the_loaded_file_computes_what_was_quantised_and_not_what_the_network_does(tmp_path):
    torch.manual_seed(0)
    pruned, folder = delivered(Image(), (3, 10, 10), tmp_path / "pruned", ["weights", "int8"])
    loaded = artifact.load(folder, format="int8")
    for batch in (1, 7):
        images = torch.randn(batch, 3, 10, 10)
        found, exact = loaded(images), pruned(images).detach()
        assert 0 < (found - exact).abs().max() < 0.1 * exact.abs().max()
    notes = artifact.read_recipe(folder)["formats"]["int8"]
    assert notes["file"] == "model.int8.onnx" and notes["batch"] == "any"
    assert notes["probe"] != artifact.read_recipe(folder)["probe"]


def test_it_runs_without_pytorch(tmp_path):
    _, folder = delivered(Image(), (3, 10, 10), tmp_path / "pruned", ["int8"])
    images = torch.randn(7, 3, 10, 10)
    np.save(tmp_path / "images.npy", images.numpy())
    code = (
        "import sys; sys.modules |= dict.fromkeys(('torch', 'torchvision', 'gnnrl_lightning'))\n"
        "import numpy, onnxruntime\n"
        "session = onnxruntime.InferenceSession('pruned/model.int8.onnx', providers=['CPUExecutionProvider'])\n"
        "(name,) = [each.name for each in session.get_inputs()]\n"
        "numpy.save('outputs.npy', session.run(None, {name: numpy.load('images.npy')})[0])\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    outputs = torch.from_numpy(np.load(tmp_path / "outputs.npy"))
    torch.testing.assert_close(artifact.load(folder, format="int8")(images), outputs)


def test_several_inputs_and_nested_outputs():
    torch.manual_seed(0)
    network = Nested().eval()
    examples = {"image": torch.randn(40, 3, 12, 12), "scale": torch.rand(40)}
    found, expected = call(quantized(network, examples), examples), call(network, examples)
    assert found.keys() == expected.keys()
    for ours, theirs in zip(tensors(found), tensors(expected), strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() < 0.1 * theirs.abs().max()


def test_a_network_that_fixes_its_batch_is_calibrated_example_by_example():
    torch.manual_seed(0)
    network, examples = FixedBatch().eval(), torch.randn(5, 3, 8, 8)
    found = quantized(network, examples)
    assert found.notes["batch"] == "fixed at 1"
    for image in examples.split(1):
        exact = network(image).detach()
        assert (found(image) - exact).abs().max() < 0.1 * exact.abs().max()


def test_what_has_nothing_to_quantise_is_refused():
    class Sine(nn.Module):
        def forward(self, x):
            return x.sin()

    with pytest.raises(UserError, match=r"quantises none of its operators; choose another format$"):
        quantized(Sine(), torch.randn(4, 3))
