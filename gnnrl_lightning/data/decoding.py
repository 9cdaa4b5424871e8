"""Decoding of image files."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torchvision.transforms import functional as TF

from gnnrl_lightning.errors import UserError, one_line

DEEP = ("I", "F")
"""First letters of Pillow's modes with integers of 16 or 32 bits, and floating point numbers: clipped, not scaled, when
they become RGB."""


@dataclass(frozen=True)
class Decoder:
    """Decodes image files to RGB pixels of a fixed size.

    Args:
        shape: Height and width of the decoded images, in pixels.
        resize: Length of the shorter side before the centre crop, in pixels; None: images are neither resized nor
            cropped and must have the right size.
    """

    shape: tuple[int, int]
    resize: int | None = None

    def __call__(self, path: str) -> np.ndarray:
        """Decode an image to uint8, shape `(3, H, W)`.

        Raises:
            UserError: The image cannot be read, or has the wrong size and `resize` is None.
        """
        image: Any = read_rgb(path)  # torchvision's type hints only allow tensors
        height, width = self.shape
        if self.resize is None and image.size != (width, height):
            raise UserError(f"{path} is {image.height}x{image.width}, other images are {height}x{width}: set `size`")
        if self.resize is not None and min(image.size) != self.resize:
            image = TF.resize(image, [self.resize], antialias=True)
        if image.size != (width, height):
            image = TF.center_crop(image, [height, width])
        return channels_first(image)


def read_rgb(path: str) -> Image.Image:
    """Read an image file and convert it to RGB.

    Raises:
        UserError: The file cannot be read as an image, or has values of more than 8 bits; the message names it.
    """
    with _opened(path) as file:
        deep = file.mode.startswith(DEEP)
        image = None if deep else file.convert("RGB")
    if image is None:
        raise UserError(f"{path} has values of mode {file.mode}: expected 8 bits a channel; convert it, as 0 to 255")
    return image


def image_size(path: str) -> tuple[int, int]:
    """Height and width of an image file, without decoding it.

    Raises:
        UserError: The file cannot be read as an image; the message names it.
    """
    with _opened(path) as file:
        return file.height, file.width


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as file:
            yield file
    except Exception as error:  # the decoders of different formats raise different exceptions
        raise UserError(f"{path} cannot be read as an image: {one_line(error)}; replace or remove it") from error


def channels_first(image: Image.Image) -> np.ndarray:
    """Pixels of an RGB image as uint8, shape `(3, H, W)`."""
    return np.asarray(image).transpose(2, 0, 1)
