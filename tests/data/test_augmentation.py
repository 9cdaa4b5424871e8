import pytest
import torch
from torch.nn import functional as F

from gnnrl_lightning.data.augmentation import CropFlip, crop_flip, cut_out, draw_centres, draw_crop_flip


@pytest.mark.parametrize(("pad", "flip"), [(0, True), (1, False), (4, True)])
def test_the_gather_equals_a_loop_over_images(pad, flip):
    images = torch.randint(0, 256, (32, 3, 7, 5), dtype=torch.uint8)
    drawn = draw_crop_flip(32, pad, flip, torch.Generator().manual_seed(5))
    expected = []
    for image, top, left, mirror in zip(images, drawn.top, drawn.left, drawn.flip, strict=True):
        crop = F.pad(image, (pad,) * 4)[:, top : top + 7, left : left + 5]
        expected.append(crop.flip(2) if mirror else crop)
    result = crop_flip(images, pad, drawn)
    assert torch.equal(result, torch.stack(expected))
    assert result.dtype == torch.uint8


def test_a_known_crop_of_a_known_image():
    image = torch.tensor([[1, 2], [3, 4]]).view(1, 1, 2, 2)
    drawn = CropFlip(torch.tensor([0]), torch.tensor([2]), torch.tensor([False]))
    assert crop_flip(image, 1, drawn).flatten().tolist() == [
        0,
        0,
        2,
        0,
    ]  # the top right corner of the padded image
    drawn = CropFlip(torch.tensor([1]), torch.tensor([1]), torch.tensor([True]))
    assert crop_flip(image, 1, drawn).flatten().tolist() == [2, 1, 4, 3]


def test_positions_are_uniform_and_flips_fair():
    drawn = draw_crop_flip(50_000, 2, True, torch.Generator().manual_seed(0))
    for position in (drawn.top, drawn.left):
        assert torch.bincount(position).tolist() == pytest.approx([10_000] * 5, abs=450)  # five standard deviations
    assert drawn.flip.sum().item() == pytest.approx(25_000, abs=560)
    assert not draw_crop_flip(100, 2, False, torch.Generator()).flip.any()
    joint = torch.bincount(drawn.top * 5 + drawn.left)
    assert joint.tolist() == pytest.approx([2_000] * 25, abs=220)


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_cutout_equals_a_loop_over_images(side):
    images = torch.randint(0, 256, (32, 3, 7, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    centres = draw_centres(32, 7, 5, torch.Generator().manual_seed(side))
    fill = torch.tensor([1, 2, 3], dtype=torch.uint8)
    expected = images.clone()
    for image, row, column in zip(expected, *centres.tolist(), strict=True):
        top, left = row - side // 2, column - side // 2
        image[:, max(0, top) : top + side, max(0, left) : left + side] = fill[:, None, None]
    found = cut_out(images, side, centres, fill)
    assert torch.equal(found, expected) and found.dtype == torch.uint8
    assert not torch.equal(found, images)


def test_centres_are_uniform():
    rows, columns = draw_centres(40_000, 4, 2, torch.Generator().manual_seed(0))
    assert torch.bincount(rows * 2 + columns).tolist() == pytest.approx([5_000] * 8, abs=330)  # five deviations
