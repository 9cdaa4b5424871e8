import argparse

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks import load_weights, mobilenet_v2, read_notes, resnet20, resnet32, save_weights


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(1)  # other weights than those of a test's own network, whatever was seeded before
    return resnet20()


def equal(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def prefixed(network, prefix):
    return {prefix + key: value for key, value in network.state_dict().items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda network: network.state_dict(),
        lambda network: {"state_dict": prefixed(network, "module."), "best_prec1": 91.7, "epoch": 199},
        lambda network: {"model": network.state_dict(), "args": {"lr": 0.1}},
        lambda network: {"state_dict": prefixed(network, "network.") | {"teacher.w": torch.zeros(3)}},
        lambda network: prefixed(network, "network._orig_mod."),
        lambda network: {"state_dict": prefixed(network, "backbone.") | {"loss.weight": torch.ones(10)}},
        lambda network: {"model_state_dict": network.state_dict(), "optimizer_state_dict": {}},
        lambda network: {k: v for k, v in network.state_dict().items() if "num_batches" not in k},
    ],
    ids=[
        "plain",
        "data-parallel",
        "model",
        "lightning",
        "compiled",
        "held by a module",
        "PyTorch's tutorial",
        "old release",
    ],
)
@pytest.mark.parametrize("suffix", ["pt", "th", "ckpt", "pth.tar"])
def test_checkpoints_of_all_kinds_load(tmp_path, source, wrap, suffix):
    torch.save(wrap(source), tmp_path / f"weights.{suffix}")
    network = resnet20()
    assert not equal(network, source)
    load_weights(network, tmp_path / f"weights.{suffix}")
    assert equal(network, source)


def test_safetensors(tmp_path, source):
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    network = resnet20()
    load_weights(network, str(tmp_path / "weights.safetensors"))
    assert equal(network, source)


@pytest.mark.parametrize("notes", [None, {"curve": [{"top1": 1 / 3}], "name": "dense"}])
def test_notes_are_kept_beside_the_weights(tmp_path, source, notes):
    save_weights(source, tmp_path / "weights.safetensors", notes)
    network = resnet20()
    load_weights(network, tmp_path / "weights.safetensors")
    assert equal(network, source) and read_notes(tmp_path / "weights.safetensors") == (notes or {})


def test_of_two_networks_in_a_file_none_is_guessed(tmp_path, source):
    torch.save(prefixed(source, "student.") | prefixed(source, "teacher."), tmp_path / "two.pt")
    refused("is for another network: it lacks", resnet20(), tmp_path / "two.pt")


def test_names_of_the_network_itself_that_look_like_a_wrapper(tmp_path):
    networks = [nn.ModuleDict({"module": nn.Linear(2, 2)}) for _ in range(2)]
    torch.save(networks[0].state_dict(), tmp_path / "w.pt")
    load_weights(networks[1], tmp_path / "w.pt")
    assert equal(*networks)


def test_types_stay(tmp_path, source):
    torch.save(
        {k: v.half() if v.is_floating_point() else v for k, v in source.state_dict().items()},
        tmp_path / "w.pt",
    )
    network = resnet20()
    load_weights(network, tmp_path / "w.pt")
    assert network.conv1.weight.dtype == torch.float32
    assert torch.equal(network.conv1.weight, source.conv1.weight.half().float())


def refused(message, network, path):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(UserError, match=message) as caught:
        load_weights(network, path)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_missing_and_damaged_files(tmp_path):
    refused("there is no file with weights at .*nowhere.pt", resnet20(), tmp_path / "nowhere.pt")
    refused("there is no file with weights", resnet20(), tmp_path)
    for name in ("empty.pt", "empty.safetensors"):
        (tmp_path / name).write_bytes(b"")
    refused("empty.pt is not a readable torch.save file", resnet20(), tmp_path / "empty.pt")
    refused("empty.safetensors is not a readable safetensors file", resnet20(), tmp_path / "empty.safetensors")
    torch.save(resnet20().state_dict(), tmp_path / "cut.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "cut.pt").read_bytes()[:50_000])
    refused("cut.pt is not a readable torch.save file", resnet20(), tmp_path / "cut.pt")
    (tmp_path / "text.pt").write_text("not weights")
    refused("text.pt is not a readable torch.save file: it begins with 'not weights'", resnet20(), tmp_path / "text.pt")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html>\n<html>not found</html>")
    refused(r"page.pth is not .* with '<!DOCTYPE html>\\n<.*'; get it again", resnet20(), tmp_path / "page.pth")
    (tmp_path / "w.npz").write_bytes(b"")
    refused("expected a file ending in .safetensors, .pt", resnet20(), tmp_path / "w.npz")


def test_files_that_need_pickle(tmp_path, source):
    torch.save({"state_dict": source.state_dict(), "args": argparse.Namespace(lr=0.1)}, tmp_path / "w.pt")
    refused(
        "would need pickle, which can run any code: save the network's state_dict",
        resnet20(),
        tmp_path / "w.pt",
    )
    torch.save(source, tmp_path / "whole.pt")
    refused("would need pickle", resnet20(), tmp_path / "whole.pt")


def test_files_without_a_state_dict(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    refused("list.pt contains a list: expected a state dict", resnet20(), tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "epoch.pt")
    refused("epoch.pt contains no state dict", resnet20(), tmp_path / "epoch.pt")


@pytest.mark.parametrize("make", [resnet20, mobilenet_v2])
def test_another_number_of_classes_names_both(tmp_path, make):
    torch.save(make(100).state_dict(), tmp_path / "w.pt")
    refused("w.pt has 100 classes, the network has 10: set `num_classes`", make(10), tmp_path / "w.pt")


def test_another_network_names_the_first_differences(tmp_path, source):
    torch.save(source.state_dict(), tmp_path / "w.pt")
    # two blocks more in each of three stages, of 2 x (1 + 4) weights and statistics, counters aside
    refused(
        "for another network: it lacks layer1.3.bn1.bias, layer1.3.bn1.running_mean, .* and 57 more",
        resnet32(),
        tmp_path / "w.pt",
    )
    torch.save(resnet32().state_dict(), tmp_path / "deep.pt")
    refused("for another network: it has layer1.3.bn1.bias, .* and 69 more", resnet20(), tmp_path / "deep.pt")
    refused(
        r"it has conv1.weight \(16, 3, 3, 3\) instead of \(16, 1, 3, 3\)",
        resnet20(in_channels=1),
        tmp_path / "w.pt",
    )
    refused("for another network: it lacks .* and has", mobilenet_v2(), tmp_path / "w.pt")


def test_nan_weights_are_named(tmp_path):
    broken = resnet20()
    with torch.no_grad():
        broken.layer2[1].conv2.weight[3, 4] = float("nan")
    torch.save(broken.state_dict(), tmp_path / "w.pt")
    refused("w.pt has 9 NaN or infinite values in layer2.1.conv2.weight", resnet20(), tmp_path / "w.pt")


class Stateful(nn.Linear):
    """Its state has a value that is no tensor."""

    note = "own"

    def get_extra_state(self):
        return {"note": self.note}

    def set_extra_state(self, state):
        self.note = state["note"]


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_values_of_the_state_that_are_no_tensors_stay(tmp_path, suffix):
    source, network, path = Stateful(3, 2), Stateful(3, 2), tmp_path / f"weights.{suffix}"
    network.note = "another"
    if suffix == "pt":
        torch.save(source.state_dict(), path)
    else:
        save_weights(source, path)
    load_weights(network, path)
    assert torch.equal(network.weight, source.weight) and network.note == "another"
