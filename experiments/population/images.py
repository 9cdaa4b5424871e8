"""Small images on which the networks of the population are trained: digits, and photographs of an image folder."""

from __future__ import annotations

import torch
from torch.nn import functional

from gnnrl_lightning.data import Digits, ImageData, ImageFolder
from gnnrl_lightning.data.examples import Images
from gnnrl_lightning.data.image_set import ImageSet, LoadedImages
from gnnrl_lightning.seeds import generator_for

SIZE = 16
"""Height and width of the images, pixels."""

COPIES = 3
"""Noisy, shifted copies of each digit."""


class NoisyDigits(ImageData):
    """Digits of 16 x 16 pixels: enlarged, shifted by up to two pixels, with noise, several copies of each.

    Without these changes every network reaches 99 %, and hardly a candidate differs from another.
    """

    name = "noisy_digits"

    def __init__(self, holdout_size: float = 512, batch_size: int = 64) -> None:
        super().__init__(batch_size, 256, holdout_size, 0, pad=2, flip=False, mean=(0.35,), std=(0.33,))

    def load(self) -> LoadedImages:
        """Both splits, each with copies of its own digits alone."""
        source = Digits(holdout_size=1)
        loaded = source.load()
        return LoadedImages(_noisy(loaded.train, 0), _noisy(loaded.test, 1), loaded.classes)


def _noisy(images: Images, seed: int) -> ImageSet:
    generator = generator_for(seed)
    decoded = images.in_memory()
    copies = decoded.inputs.repeat(COPIES, 1, 1, 1).float()
    large = functional.interpolate(copies, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    padded = functional.pad(large, (2, 2, 2, 2))
    shifts = torch.randint(5, (len(large), 2), generator=generator)
    rows = (shifts[:, :1] + torch.arange(SIZE))[:, None, :, None]
    columns = (shifts[:, 1:] + torch.arange(SIZE))[:, None, None, :]
    shifted = padded[torch.arange(len(large))[:, None, None, None], torch.zeros_like(rows), rows, columns]
    noise = 40 * torch.randn(shifted.shape, generator=generator)
    return ImageSet((shifted + noise).clamp(0, 255).to(torch.uint8), decoded.targets.repeat(COPIES))


class SmallPhotographs(ImageData):
    """Images of an image folder, averaged down to 16 x 16 pixels.

    Args:
        root: Folder with train/ and test/.
        images: Training images to use, those held out included.
        holdout_size: Images held out.
        batch_size: Training images in a batch.
    """

    name = "small_photographs"

    def __init__(self, root: str, images: int = 6000, holdout_size: float = 512, batch_size: int = 64) -> None:
        super().__init__(batch_size, 256, holdout_size, 0, pad=2)
        self.root, self.images = root, images

    def load(self) -> LoadedImages:
        """The first images of a random order of each split."""
        loaded = ImageFolder(self.root, holdout_size=1).load()
        test = min(1000, len(loaded.test))
        return LoadedImages(_averaged(loaded.train, self.images), _averaged(loaded.test, test), loaded.classes)


def _averaged(images: Images, count: int) -> ImageSet:
    chosen = torch.randperm(len(images), generator=generator_for(0))[:count]
    some = images.subset(chosen).in_memory()
    small = functional.adaptive_avg_pool2d(some.inputs.float(), SIZE)
    return ImageSet(small.round().to(torch.uint8), some.targets)
