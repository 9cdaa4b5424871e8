"""OpenVINO IR: any batch, nested inputs and outputs, and no PyTorch where it is run."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from gnnrl_lightning.artifacts import artifact, formats
from gnnrl_lightning.artifacts.formats import FORMATS
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.exporting import openvino_runtime
from gnnrl_lightning.trees import call, layout, tensors
from tests.support.delivered import Image, Nested, delivered

pytest.importorskip("openvino")


def test_nested_outputs_come_back_as_they_were_for_any_batch(tmp_path):
    torch.manual_seed(0)
    network, row = Nested().eval(), FORMATS.find("openvino")
    example = {"image": torch.randn(2, 3, 12, 12), "scale": torch.rand(2)}
    notes = row.write(network, example, tmp_path / "model.xml")
    assert notes == {"batch": "any", "outputs": {"maps": [0, 1], "sequence": 2}}
    loaded = row.load(tmp_path / "model.xml", {"input": layout(example), "formats": {"openvino": notes}}, None, example)
    for batch in (1, 7):
        inputs = {"image": torch.randn(batch, 3, 12, 12), "scale": torch.rand(batch)}
        found, expected = call(loaded, dict(reversed(inputs.items()))), call(network, inputs)
        assert found.keys() == expected.keys() and len(found["maps"]) == 2
        for ours, theirs in zip(tensors(found), tensors(expected), strict=True):
            torch.testing.assert_close(ours, theirs.detach(), rtol=1e-4, atol=1e-5)


def test_a_pruned_network_runs_without_pytorch(tmp_path):
    """In a process that has neither torch, torchvision, nor this package: imports of any fail."""
    pruned, folder = delivered(Image(), (3, 10, 10), tmp_path / "pruned", ["weights", "openvino"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.bin",
        "model.xml",
        "recipe.json",
        "weights.safetensors",
    ]
    images = torch.randn(7, 3, 10, 10)
    np.save(tmp_path / "images.npy", images.numpy())
    code = (
        "import sys; sys.modules |= dict.fromkeys(('torch', 'torchvision', 'gnnrl_lightning'))\n"
        "import numpy, openvino\n"
        "model = openvino.Core().compile_model('pruned/model.xml', 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})\n"
        "numpy.save('outputs.npy', model([numpy.load('images.npy')])[0])\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    outputs = torch.from_numpy(np.load(tmp_path / "outputs.npy"))
    torch.testing.assert_close(outputs, pruned(images).detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(artifact.load(folder, format="openvino")(images), outputs)


def test_weights_are_neither_rounded_nor_missing_their_check(tmp_path):
    """OpenVINO would halve them if it were let; damage to the second file is found as well."""
    pruned, folder = delivered(Image(), (3, 10, 10), tmp_path / "pruned", ["openvino"])
    size = (folder / "model.bin").stat().st_size
    assert size >= 4 * sum(parameter.numel() for parameter in pruned.parameters() if parameter.dim() > 1)
    note = artifact.read_recipe(folder)["formats"]["openvino"]
    assert note["file"] == "model.xml" and note["beside"] == ["model.bin"]
    data = bytearray((folder / "model.bin").read_bytes())
    data[size // 2] ^= 1
    (folder / "model.bin").write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"model\.bin is damaged: its SHA-256 is"):
        artifact.load(folder, format="openvino")
    (folder / "model.bin").unlink()
    with pytest.raises(UserError, match=r"model\.bin is missing"):
        artifact.load(folder, format="openvino")


def test_what_openvino_cannot_read_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"^the network cannot be written as OpenVINO IR: .*; choose another format$"):
        openvino_runtime.write_ir(b"nothing", tmp_path / "model.xml")


def test_missing_packages_are_named_before_anything_is_written(monkeypatch):
    monkeypatch.setattr(openvino_runtime, "PACKAGES", ("onnx", "of_no_such_name"))
    with pytest.raises(UserError, match=r"openvino needs of_no_such_name: pip install 'gnnrl-lightning\[openvino\]'"):
        formats.find_formats(["weights", "openvino"], "delivery.formats")
