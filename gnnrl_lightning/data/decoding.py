"""From an image file to pixels."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torchvision.transforms import functional as TF

from gnnrl_lightning.errors import UserError


@dataclass(frozen=True)
class Decoder:
    """Decodes image files to RGB pixels of one size.

    Args:
        shape: Height and width of what comes out, pixels.
        resize: Length of the shorter side before the centre crop, pixels; None resamples and crops nothing,
            and refuses images of another size.
    """

    shape: tuple[int, int]
    resize: int | None = None

    def __call__(self, path: str) -> np.ndarray:
        """One image as uint8, shape `(3, H, W)`.

        Raises:
            UserError: It cannot be read, or has another size where nothing is resampled.
        """
        image: Any = read_rgb(path)  # the type hints of torchvision know tensors alone
        height, width = self.shape
        if self.resize is None and image.size != (width, height):
            raise UserError(f"{path} is {image.height}x{image.width}, others are {height}x{width}: set `size`")
        if self.resize is not None and min(image.size) != self.resize:
            image = TF.resize(image, [self.resize], antialias=True)
        if image.size != (width, height):
            image = TF.center_crop(image, [height, width])
        return channels_first(image)


def read_rgb(path: str) -> Image.Image:
    """An image file, converted to RGB.

    Raises:
        UserError: It cannot be read as an image; the message names it.
    """
    with _opened(path) as file:
        return file.convert("RGB")


def image_size(path: str) -> tuple[int, int]:
    """Height and width of an image file, without decoding it.

    Raises:
        UserError: It cannot be read as an image; the message names it.
    """
    with _opened(path) as file:
        return file.height, file.width


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as file:
            yield file
    except Exception as error:  # each format's decoder raises what it likes
        raise UserError(f"{path} cannot be read as an image: {error}") from error


def channels_first(image: Image.Image) -> np.ndarray:
    """The pixels of an RGB image, uint8, shape `(3, H, W)`."""
    return np.asarray(image).transpose(2, 0, 1)
