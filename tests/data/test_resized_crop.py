import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as TF

from gnnrl_lightning.data.resized_crop import ResizedCrop
from gnnrl_lightning.errors import UserError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("height", "width"), [(37, 50), (64, 64), (9, 400), (400, 9), (1, 1)])
@pytest.mark.parametrize("crop", [ResizedCrop(), ResizedCrop((0.3, 0.6), (0.5, 1.5))], ids=["usual", "other"])
def test_rectangles_are_torchvisions(crop, height, width):
    image = torch.zeros(3, height, width)
    for seed in range(30):
        torch.manual_seed(seed)
        expected = transforms.RandomResizedCrop.get_params(image, list(crop.scale), list(crop.ratio))
        assert crop.draw(height, width, generator(seed)) == tuple(expected)


def test_areas_and_ratios_keep_their_ranges():
    crop, drawn = ResizedCrop((0.25, 0.5), (0.5, 2.0)), generator()
    boxes = [crop.draw(1000, 1000, drawn) for _ in range(400)]
    areas = np.array([height * width / 1e6 for _, _, height, width in boxes])
    ratios = np.array([width / height for _, _, height, width in boxes])
    assert 0.249 < areas.min() < 0.27 and 0.48 < areas.max() < 0.501
    assert 0.49 < ratios.min() < 0.55 and 1.8 < ratios.max() < 2.01
    # Log-uniform, hence as many wide as high ones; the mean of 400 is within three standard deviations, 0.06.
    assert abs(np.log(ratios).mean()) < 3 * math.log(4) / math.sqrt(12 * 400)
    assert all(top + height <= 1000 and left + width <= 1000 for top, left, height, width in boxes)


def test_an_image_without_room_for_any_rectangle_gives_its_middle():
    # All of the area at ratios up to 4/3: 1000 x 10 pixels have 13 x 10 to give.
    assert ResizedCrop((1.0, 1.0)).draw(10, 1000, generator()) == (0, 493, 10, 13)
    assert ResizedCrop((1.0, 1.0)).draw(1000, 10, generator()) == (493, 0, 13, 10)


def test_pixels_are_torchvisions():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    image, crop = Image.fromarray(pixels), ResizedCrop()
    for seed in range(5):
        found = crop(image, (12, 16), generator(seed))
        expected = TF.resized_crop(image, *crop.draw(50, 70, generator(seed)), size=[12, 16], antialias=True)
        assert found.size == (16, 12)
        assert np.array_equal(np.asarray(found), np.asarray(expected))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": (0.0, 1.0)}, "crop_scale is "),
        ({"scale": (0.5, 0.1)}, "crop_scale is "),
        ({"scale": (0.5, 1.1)}, "crop_scale is "),
        ({"ratio": (0.0, 1.0)}, "crop_ratio is "),
        ({"ratio": (2.0, 1.0)}, "crop_ratio is "),
        ({"ratio": (1.0, math.inf)}, "crop_ratio is "),
    ],
)
def test_empty_ranges_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        ResizedCrop(**arguments)
