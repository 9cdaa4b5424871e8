"""Random crop, horizontal flip and cutout of a whole batch on the images' device."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class CropFlip:
    """Crop position and flip of each image in a batch.

    Args:
        top: First row of the crop in the padded image, int64, shape `(N,)`, from 0 to 2 * padding.
        left: First column, likewise.
        flip: Whether to mirror the crop, bool, shape `(N,)`.
    """

    top: Tensor
    left: Tensor
    flip: Tensor


def draw_crop_flip(images: int, pad: int, flip: bool, generator: torch.Generator) -> CropFlip:
    """Draw uniform crop positions, and flips with probability 1/2.

    Random numbers are drawn on the generator's device; a CPU generator gives the same augmentation on every device.

    Args:
        images: Number of images N.
        pad: Padding on each side, in pixels.
        flip: Whether to flip images at all.
        generator: Random generator.
    """
    device = generator.device
    top, left = torch.randint(0, 2 * pad + 1, (2, images), generator=generator, device=device)
    coin = torch.randint(0, 2, (images,), generator=generator, device=device).bool()
    return CropFlip(top, left, coin if flip else torch.zeros_like(coin))


def crop_flip(images: Tensor, pad: int, drawn: CropFlip) -> Tensor:
    """Pad images with zeros, crop each at its own position, and mirror some of them.

    Args:
        images: Shape `(N, C, H, W)`, any dtype.
        pad: Zero padding on each side, in pixels.
        drawn: Crop positions and flips of the N images.

    Returns:
        Images of the same shape and dtype.
    """
    n, channels, height, width = images.shape
    device = images.device
    padded = F.pad(images, (pad, pad, pad, pad)).flatten(2)
    rows = drawn.top.to(device)[:, None] + torch.arange(height, device=device)
    columns = torch.arange(width, device=device).expand(n, width)
    columns = torch.where(drawn.flip.to(device)[:, None], width - 1 - columns, columns)
    columns = columns + drawn.left.to(device)[:, None]
    source = (rows[:, :, None] * (width + 2 * pad) + columns[:, None, :]).flatten(1)
    return padded.gather(2, source[:, None].expand(n, channels, height * width)).view(images.shape)


def draw_centres(images: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw a uniform pixel of each image.

    Args:
        images: Number of images N.
        height: Height of the images, in pixels.
        width: Width, likewise.
        generator: CPU generator.

    Returns:
        Row and column, int64, shape `(2, N)`.
    """
    rows = torch.randint(0, height, (images,), generator=generator)
    return torch.stack([rows, torch.randint(0, width, (images,), generator=generator)])


def cut_out(images: Tensor, side: int, centres: Tensor, fill: Tensor) -> Tensor:
    """Replace a square of each image, of which the part beyond the image's border is lost.

    Args:
        images: Shape `(N, C, H, W)`, any dtype.
        side: Side of the square, in pixels: rows and columns from centre - side // 2.
        centres: Row and column of each square, shape `(2, N)`.
        fill: The new pixel, shape `(C,)`, of the images' dtype.

    Returns:
        Images of the same shape and dtype.

    Source: DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout,
        https://arxiv.org/abs/1708.04552.
    """
    height, width = images.shape[2:]
    first_row, first_column = centres.to(images.device)[:, :, None] - side // 2
    rows = torch.arange(height, device=images.device) - first_row
    columns = torch.arange(width, device=images.device) - first_column
    inside = ((rows >= 0) & (rows < side))[:, None, :, None] & ((columns >= 0) & (columns < side))[:, None, None, :]
    return torch.where(inside, fill.to(images.device)[:, None, None], images)
