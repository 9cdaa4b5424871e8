"""ONNX files: any batch, nested inputs and outputs, and no PyTorch where they are run."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from gnnrl_lightning.artifacts import artifact, formats
from gnnrl_lightning.artifacts.formats import FORMATS
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.exporting import onnx_runtime
from gnnrl_lightning.trees import call, layout, tensors
from tests.support.delivered import Image, Nested, delivered


class Counts(Image):
    """It returns a number beside its tensor."""

    def forward(self, x):
        return super().forward(x), 3


def written(network, example, path):
    row = FORMATS.find("onnx")
    notes = row.write(network.eval(), example, path)
    return notes, row.load(path, {"input": layout(example), "formats": {"onnx": notes}}, None, example)


def test_nested_outputs_come_back_as_they_were_for_any_batch(tmp_path):
    torch.manual_seed(0)
    network = Nested()
    example = {"image": torch.randn(2, 3, 12, 12), "scale": torch.rand(2)}
    notes, session = written(network, example, tmp_path / "model.onnx")
    assert notes == {"batch": "any", "outputs": {"maps": [0, 1], "sequence": 2}}
    for batch in (1, 7):
        inputs = {"image": torch.randn(batch, 3, 12, 12), "scale": torch.rand(batch)}
        found, expected = call(session, inputs), call(network, inputs)
        assert found.keys() == expected.keys() and len(found["maps"]) == 2
        for ours, theirs in zip(tensors(found), tensors(expected), strict=True):
            torch.testing.assert_close(ours, theirs.detach(), rtol=1e-4, atol=1e-5)


def test_inputs_by_name_may_come_in_any_order(tmp_path):
    class Difference(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, first, others):
            return self.linear(first) - 2 * others["second"] + 3 * others["third"]

    first, second, third = torch.randn(3, 2, 3).unbind()
    network = Difference()
    by_name = {"first": first, "others": {"second": second, "third": third}}
    expected = call(network, by_name).detach()
    _, session = written(network, by_name, tmp_path / "model.onnx")
    turned = {"others": {"third": third, "second": second}, "first": first}
    torch.testing.assert_close(session(**turned), expected)
    torch.testing.assert_close(session(**by_name), expected)
    for inputs, named in (((first, by_name["others"]), {}), ((first,), {"others": by_name["others"]})):
        with pytest.raises(UserError, match="exported for other inputs than are given: expected first, others by name"):
            session(*inputs, **named)
    with pytest.raises(UserError, match="expected second, third by name"):
        session(first=first, others={"second": second})
    _, session = written(network, (first, by_name["others"]), tmp_path / "model.onnx")
    torch.testing.assert_close(session(first, turned["others"]), expected)
    with pytest.raises(UserError, match="expected 2 by position"):
        session(**by_name)


def test_a_pruned_network_runs_without_pytorch(tmp_path):
    """In a process that has neither torch nor this package: imports of either fail."""
    torch.manual_seed(0)
    pruned, folder = delivered(Image(), (3, 10, 10), tmp_path / "pruned", ["weights", "onnx"], example=2)
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "recipe.json", "weights.safetensors"]
    images = torch.randn(7, 3, 10, 10)
    np.save(tmp_path / "images.npy", images.numpy())
    code = (
        "import sys; sys.modules |= dict.fromkeys(('torch', 'gnnrl_lightning'))\n"
        "import numpy, onnxruntime\n"
        "session = onnxruntime.InferenceSession('pruned/model.onnx', providers=['CPUExecutionProvider'])\n"
        "(name,) = [each.name for each in session.get_inputs()]\n"
        "numpy.save('outputs.npy', session.run(None, {name: numpy.load('images.npy')})[0])\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    outputs = torch.from_numpy(np.load(tmp_path / "outputs.npy"))
    torch.testing.assert_close(outputs, pruned(images).detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(artifact.load(folder, format="onnx")(images), outputs)


def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"cannot be written as ONNX: it returns something other than tensors"):
        written(Counts(), torch.randn(2, 3, 10, 10), tmp_path / "model.onnx")
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no rule\nmore")))
    with pytest.raises(
        UserError, match=r"^the network cannot be written as ONNX: no rule; choose another format or back end$"
    ):
        written(Image(), torch.randn(2, 3, 10, 10), tmp_path / "model.onnx")


def test_missing_packages_are_named_before_anything_is_written(monkeypatch):
    monkeypatch.setattr(onnx_runtime, "PACKAGES", ("onnx", "of_no_such_name", "nor_this_one"))
    with pytest.raises(UserError, match=r"needs of_no_such_name, nor_this_one: pip install 'gnnrl-lightning\[onnx"):
        formats.find_formats(["weights", "onnx"], "delivery.formats")
