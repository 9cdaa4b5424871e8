import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from gnnrl_lightning.cli import main
from gnnrl_lightning.data import ImageFolder, StreamingImageFolder
from gnnrl_lightning.data import decoding as decoding_module
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.objective import Classification
from gnnrl_lightning.training.module import SupervisedModule
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.training.train import figures, quiet_trainer, train
from tests.support.fakes import SaveAt

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create .* worker processes:UserWarning"),
    pytest.mark.filterwarnings("ignore:.* use of fork.* may lead to deadlocks:DeprecationWarning"),
]

CLASSES = {"n01440764": (200, 60, 60), "n01443537": (60, 200, 60), "n01484850": (60, 60, 200)}


def write(path, colour, seed):
    """A JPEG of its own size, noise around a colour."""
    draw = np.random.default_rng(seed)
    height, width = draw.integers(14, 40, 2)
    pixels = np.clip(draw.normal(colour, 40, (height, width, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=90)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """ImageNet's layout: train/ and val/ with 3 x 30 and 3 x 9 images."""
    root = tmp_path_factory.mktemp("imagenet")
    seed = itertools.count()
    for (split, count), (name, colour) in itertools.product({"train": 30, "val": 9}.items(), CLASSES.items()):
        for index in range(count):
            write(root / split / name / f"{index:02}.JPEG", colour, next(seed))
    return root


SETTINGS = {"size": 12, "resize": 14, "holdout_size": 18, "batch_size": 16, "eval_batch_size": 8, "split_seed": 5}


def streamed(folder, **more):
    data = StreamingImageFolder(str(folder), **{**SETTINGS, "num_workers": 0, **more})
    data.setup()
    return data


def in_memory(folder, **more):
    data = ImageFolder(str(folder), **{**SETTINGS, **more})
    data.setup()
    return data


def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 3),
    )


def on_cpu(**flags):
    return quiet_trainer(accelerator="cpu", **flags)


def test_splits_and_calibration_are_those_in_memory(folder):
    data, reference = streamed(folder), in_memory(folder)
    assert data.classes == reference.classes == tuple(CLASSES)
    assert torch.equal(data.holdout.images, reference.holdout.images)
    assert torch.equal(data.holdout.labels, reference.holdout.labels)
    assert torch.bincount(data.holdout.labels).tolist() == [6, 6, 6]
    assert not torch.equal(streamed(folder, split_seed=6).holdout.images, data.holdout.images)
    assert torch.equal(data.calibration(20), reference.calibration(20))
    for name in ("train", "test"):
        images, expected = getattr(data, name), getattr(reference, name)
        assert torch.equal(images.labels, expected.labels)
        assert torch.equal(images.in_memory().images, expected.images)
    assert data.transform_record() == reference.transform_record()
    with pytest.raises(UserError, match="number of calibration images is 73: expected a whole number from 1 to 72"):
        data.calibration(73)


def test_loaders_of_search_and_test_images_give_what_is_in_memory(folder):
    data, reference = streamed(folder), in_memory(folder)
    for name in ("val_dataloader", "test_dataloader"):
        for batch, expected in zip(getattr(data, name)(), getattr(reference, name)(), strict=True):
            assert batch.seed is None
            assert torch.equal(batch.inputs, expected.inputs) and torch.equal(batch.targets, expected.targets)


def test_training_images_are_resized_crops_and_half_of_them_mirrored(folder):
    data = streamed(folder, pad=4)
    batch = next(iter(data.train_dataloader()))
    on_device = data.on_after_batch_transfer(batch, 0).inputs
    plain, mirrored = data.normalize(batch.inputs), data.normalize(batch.inputs.flip(3))
    flipped = [torch.equal(image, other) for image, other in zip(on_device, mirrored, strict=True)]
    kept = [torch.equal(image, other) for image, other in zip(on_device, plain, strict=True)]
    # Nothing is padded. The labels tell the order, the class of each crop its colour.
    assert all(one != other for one, other in zip(flipped, kept, strict=True)) and any(flipped) and any(kept)
    assert torch.equal(batch.inputs.float().mean((2, 3)).argmax(1), batch.targets)
    decoded = [image.tobytes() for image in data.train.in_memory().images.numpy()]
    assert not any(image.tobytes() in decoded for image in batch.inputs.numpy())


@pytest.mark.parametrize("arguments", [{"crop_scale": None}, {"size": None, "resize": None}], ids=["crop", "size"])
def test_otherwise_training_images_are_those_in_memory_padded_and_cropped(folder, tmp_path, arguments):
    if "size" in arguments:  # images that have their size
        for path in folder.rglob("*.JPEG"):
            target = tmp_path / path.relative_to(folder).with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.open(path).resize((12, 12)).save(target)
        folder = tmp_path
    data = streamed(folder, num_workers=2, **arguments)
    reference = in_memory(folder, **{key: value for key, value in arguments.items() if key != "crop_scale"})
    for batch, expected in zip(data.train_dataloader(), reference.train_dataloader(), strict=True):
        found, expected = (each.on_after_batch_transfer(raw, 0) for each, raw in ((data, batch), (reference, expected)))
        assert torch.equal(found.inputs, expected.inputs) and torch.equal(found.targets, expected.targets)


def test_each_device_gets_its_share(folder):
    labels = []
    for rank in range(2):
        data = streamed(folder)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2)
        batches = list(data.train_dataloader())
        assert len(batches) == 3  # 72 images, 32 a step
        labels += [batch.targets for batch in batches]
    assert torch.bincount(torch.cat(labels)).tolist() == [24, 24, 24]


def test_only_what_is_asked_for_is_decoded(folder, monkeypatch):
    opened, original = [], Image.open
    monkeypatch.setattr(decoding_module.Image, "open", lambda path: opened.append(path) or original(path))

    def decoded_by(action):
        opened.clear()
        action()
        return len(opened)

    made = []
    assert decoded_by(lambda: made.append(streamed(folder))) == 18  # the holdout
    (data,) = made
    held = set(opened)
    assert decoded_by(lambda: data.calibration(5)) == 5 and held.isdisjoint(opened)
    batches = iter(data.train_dataloader())
    assert decoded_by(lambda: None) == 0
    assert decoded_by(lambda: next(batches)) == 15  # 72 images in five batches of at most 16
    assert held.isdisjoint(opened)
    assert decoded_by(lambda: figures(small(), data.test, data, Classification())["top1"]) == 27
    assert (
        decoded_by(lambda: figures(small(), data.test.subset(torch.arange(27)[::2]), data, Classification())["top1"])
        == 14
    )
    # Of the images in memory, all were decoded at the start.
    assert decoded_by(lambda: in_memory(folder)) == 117


@pytest.mark.parametrize("workers", [0, 2])
def test_top1_is_that_of_the_images_in_memory(folder, workers):
    data, reference, network = streamed(folder, num_workers=workers), in_memory(folder), small()
    train(network, reference, TrainingOptions(epochs=2), Classification(), trainer=on_cpu)
    with torch.no_grad():
        guesses = network(reference.normalize(reference.test.images)).argmax(1)
    expected = 100 * (guesses == reference.test.labels).sum().item() / 27
    assert figures(network, data.test, data, Classification())["top1"] == expected > 34
    odd = torch.arange(27)[1::2]
    share = 100 * (guesses[odd] == reference.test.labels[odd]).sum().item() / 13
    assert figures(network, data.test.subset(odd), data, Classification())["top1"] == share


def test_training_learns_alike_with_any_number_of_workers(folder):
    networks = []
    for workers in (0, 2):
        data = streamed(folder, num_workers=workers)
        networks.append(small())
        train(networks[-1], data, TrainingOptions(epochs=4), Classification(), trainer=on_cpu, seed=1)
        assert figures(networks[-1], data.test, data, Classification())["top1"] > 80
    assert all(map(torch.equal, networks[0].state_dict().values(), networks[1].state_dict().values()))


@pytest.mark.parametrize("save_at", [2, 5, 7], ids=["within an epoch", "at an epoch's end", "in the second epoch"])
def test_resuming_gives_the_weights_of_the_uninterrupted_run(folder, tmp_path, save_at):
    data = streamed(folder, num_workers=1)

    def run(ckpt_path=None, **flags):
        network = small()
        network[3].p = 0.0  # Lightning restores no random state for dropout
        on_cpu(max_epochs=2, default_root_dir=tmp_path, **flags).fit(
            SupervisedModule(network, TrainingOptions(epochs=2), Classification()),
            datamodule=data,
            ckpt_path=ckpt_path,
            weights_only=True,
        )
        return network.state_dict().values()

    whole = run(callbacks=[SaveAt(save_at, tmp_path / "at.ckpt")])
    assert len(data.train_dataloader()) == 5
    assert all(map(torch.equal, whole, run(tmp_path / "at.ckpt")))
    assert not all(map(torch.equal, whole, small().state_dict().values()))


def refused(message, folder, **arguments):
    with pytest.raises(UserError, match=message) as caught:
        streamed(folder, **arguments)
    assert "\n" not in str(caught.value)


def test_bad_arguments_get_one_line(folder, tmp_path):
    refused("num_workers is -1: expected at least 0", folder, num_workers=-1)
    refused(r"crop_scale is \(0.5, 2.0\)", folder, crop_scale=(0.5, 2.0))
    refused("is not an image folder: expected train/", tmp_path)
    refused("cannot hold out 90 of 90 images", folder, holdout_size=90)
    refused(
        "18 images of 3x12x12 take .* more than memory_limit_gib=1e-06: the holdout is kept in memory",
        folder,
        memory_limit_gib=1e-6,
    )
    with pytest.raises(UserError, match=r"117 images .*stream the images with data.StreamingImageFolder"):
        in_memory(folder, memory_limit_gib=1e-6)
    # Images that are not held in memory do not count: the 18 of 117 that do fit.
    assert len(streamed(folder, memory_limit_gib=18 * 3 * 12 * 12 / 2**30).train) == 72


def test_a_broken_training_image_is_named_while_training(folder, tmp_path):
    for path in folder.rglob("*.JPEG"):
        target = tmp_path / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    data = streamed(tmp_path, num_workers=1)
    name = data.train.paths[11]
    Path(name).write_bytes(b"not an image")
    with pytest.raises(UserError, match=f"{name} cannot be read as an image"):
        train(small(), data, TrainingOptions(epochs=1), Classification(), trainer=on_cpu)


OWN = """
from torch import nn


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, stride=2), nn.BatchNorm2d(8)
        self.classifier = nn.Linear(8, 3)

    def forward(self, x):
        x = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return self.classifier(x.mean((2, 3)))
"""


def test_fit_and_test_from_the_command_line(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "streamed_network.py").write_text(OWN)
    config = {
        "network": {"class_path": "streamed_network.Own"},
        "data": {
            "class_path": "gnnrl_lightning.data.StreamingImageFolder",
            "init_args": {"root": str(folder), "crop_scale": [0.2, 1.0], "num_workers": 1} | SETTINGS,
        },
        "budget": {"macs": 0.5},
        "search": {"evaluations": 30},
        "candidate": {"calibration_examples": 16},
        "scoring": {"finetune_steps": 1},
        "delivery": {"calibration_examples": 32},
        "model": {"proxy_warmup": 1, "proxy_between": 0, "proxy_episodes": 8},
        "pretraining": {"epochs": 5},
        "finetuning": {"epochs": 2, "learning_rate": 0.02},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", "config.yaml", "--run.name", "run"])
    result = json.loads((tmp_path / "runs" / "run" / "result.json").read_text())
    assert result["dataset"] == folder.name and result["pruned"]["macs_ratio"] <= 0.5
    assert result["pruned"]["top1_test_after"] > 60
    main(["test", "--config", "config.yaml", "--artifact", "runs/run/pruned"])
    assert f"top-1 on the test examples: {result['pruned']['top1_test_after']:.2f} %" in capsys.readouterr().out
