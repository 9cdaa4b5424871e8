from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gnnrl_lightning.candidates.short_finetune import ShortFinetune
from gnnrl_lightning.data.decoding import Decoder
from gnnrl_lightning.data.image_files import ImageFiles
from gnnrl_lightning.data.image_set import ImageSet
from gnnrl_lightning.data.resized_crop import ResizedCrop
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.objective import Classification


def images(count=40):
    """Bright images are of class 1."""
    labels = torch.arange(count) % 2
    noise = torch.randint(0, 40, (count, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    return ImageSet((noise + 150 * labels[:, None, None, None]).to(torch.uint8), labels)


def network():
    torch.manual_seed(0)
    body = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten())
    return nn.Sequential(*body, nn.Linear(16, 2))


def short(steps=20, **more):
    return ShortFinetune(
        images(), lambda *given: given[:2], lambda pixels: pixels.float() / 100, Classification(), steps, 16, **more
    )


def test_it_learns_and_ends_in_evaluation_mode():
    net = network()
    x, y = short().normalize(images().images), images().labels
    before = nn.functional.cross_entropy(net.eval()(x), y)
    short(learning_rate=0.1)(net)
    assert not net.training
    assert nn.functional.cross_entropy(net(x), y) < before / 2


def test_the_same_seed_gives_the_same_weights_whatever_happened_before():
    results = []
    for seed in (0, 0, 1):
        net = network()
        torch.manual_seed(len(results))
        state = torch.get_rng_state()
        short(seed=seed)(net)
        assert torch.equal(state, torch.get_rng_state())
        results.append(torch.cat([p.flatten() for p in net.parameters()]))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_batches_have_one_size_and_an_epoch_repeats_no_image():
    seen = [labels for _, labels in short(steps=5).batches()]
    assert [len(labels) for labels in seen] == [16] * 5
    identity = ImageSet(images().images, torch.arange(40))
    drawn = [
        index
        for _, index in ShortFinetune(
            identity, lambda *given: given[:2], torch.Tensor.float, Classification(), 4, 16
        ).batches()
    ]
    first, second = torch.cat(drawn[:2]), torch.cat(drawn[2:])
    assert len(first.unique()) == 32 and len(second.unique()) == 32


def test_images_on_disk_are_read_as_those_in_memory_and_cropped_from_the_seed(tmp_path):
    for index in range(40):
        pixels = np.random.default_rng(index).integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    paths = tuple(str(tmp_path / f"{index}.png") for index in range(40))
    on_disk = ImageFiles(paths, torch.arange(40), Decoder((4, 4), resize=4))

    def read(images, seed=0):
        batches = ShortFinetune(
            images, lambda *given: given[:2], torch.Tensor.float, Classification(), 4, 16, seed=seed
        ).batches()
        inputs, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        return inputs, labels.tolist()

    inputs, labels = read(on_disk)
    expected, expected_labels = read(on_disk.in_memory())
    assert torch.equal(inputs, expected) and labels == expected_labels
    cropped = replace(on_disk, crop=ResizedCrop())
    first, first_labels = read(cropped)
    assert first_labels == labels and not torch.equal(first, inputs)
    assert torch.equal(read(cropped)[0], first)
    # Of one image everywhere, each step has other crops, and so has another seed.
    alike = replace(cropped, paths=paths[:1] * 40)
    steps = read(alike)[0].split(16)
    assert not any(torch.equal(one, other) for one, other in combinations(steps, 2))
    assert not torch.equal(read(alike, seed=1)[0], torch.cat(steps))


def test_frozen_parameters_stay():
    net = network()
    net[0].weight.requires_grad_(False)
    before = net[0].weight.clone()
    short()(net)
    assert torch.equal(net[0].weight, before)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"precision": "16"}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(UserError):
        short(**wrong)
