import pytest
import torch
from sklearn.datasets import load_digits

from gnnrl_lightning.data import Digits


@pytest.fixture(scope="module")
def digits():
    data = Digits()
    data.setup()
    return data


def test_sizes_and_shape(digits):
    # 1,797 = 360 test + 1,437, of which int(0.2 * 1,437) = 287 are the holdout
    assert (len(digits.train), len(digits.holdout), len(digits.test)) == (1150, 287, 360)
    assert (digits.image_shape, digits.num_classes, digits.name) == ((1, 8, 8), 10, "digits")


def test_every_class_has_its_share_of_the_test_images(digits):
    per_class = torch.bincount(torch.from_numpy(load_digits().target))
    shares = per_class * 360 / 1797
    assert (torch.bincount(digits.test.labels) - shares).abs().max() < 1


def test_pixels_are_the_seventeen_levels(digits):
    pixels = torch.cat([digits.train.images, digits.holdout.images, digits.test.images])
    assert pixels.unique().tolist() == [round(level * 255 / 16) for level in range(17)]
    assert pixels.long().sum(0).float().div(255 / 16).mean().item() == pytest.approx(
        load_digits().data.sum() / 64, rel=1e-3
    )


def test_mean_and_std_are_those_of_the_training_images(digits):
    images = torch.cat([digits.train.images, digits.holdout.images]).float() / 255
    assert images.mean().item() == pytest.approx(digits.mean[0], abs=1e-3)
    assert images.std().item() == pytest.approx(digits.std[0], abs=1e-3)


def test_test_images_do_not_follow_the_split_seed(digits):
    other = Digits(split_seed=5)
    other.setup()
    assert torch.equal(other.test.images, digits.test.images)
    assert not torch.equal(other.holdout.images, digits.holdout.images)
