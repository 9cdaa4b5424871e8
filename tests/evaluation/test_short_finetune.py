import pytest
import torch
from torch import nn

from gnnrl_lightning.data.image_set import ImageSet
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.short_finetune import ShortFinetune


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
    return ShortFinetune(images(), lambda pixels, _: pixels, lambda pixels: pixels.float() / 100, steps, 16, **more)


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
    drawn = [index for _, index in ShortFinetune(identity, lambda p, _: p, torch.Tensor.float, 4, 16).batches()]
    first, second = torch.cat(drawn[:2]), torch.cat(drawn[2:])
    assert len(first.unique()) == 32 and len(second.unique()) == 32


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
