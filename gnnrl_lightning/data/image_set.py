"""Decoded images in memory, and the check that they fit."""

from dataclasses import dataclass

from torch import Tensor

from gnnrl_lightning.errors import UserError


@dataclass(frozen=True)
class ImageSet:
    """Decoded images with their labels.

    Args:
        images: pixels, uint8, shape `(N, C, H, W)`.
        labels: class indices, int64, shape `(N,)`.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        """Refuse images and labels that do not belong together."""
        if self.images.ndim != 4 or self.labels.shape != self.images.shape[:1]:
            raise UserError(
                f"images of shape {tuple(self.images.shape)} and labels of shape {tuple(self.labels.shape)}: "
                "expected (N, C, H, W) and (N,)"
            )

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    def subset(self, indices: Tensor) -> "ImageSet":
        """The images at `indices` (int64, shape `(n,)`), copied, in that order."""
        return ImageSet(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class LoadedImages:
    """What a source of images gives: its two official splits and the names of its classes.

    Args:
        train: every training image, the search split's included.
        test: the test images.
        classes: names of the classes, by label.
    """

    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]


def check_fits(images: int, image_shape: tuple[int, int, int], limit_gib: float) -> None:
    """Refuse to hold more decoded images in memory than the limit allows.

    Args:
        images: number of images of all splits.
        image_shape: `(C, H, W)`, one byte an element.
        limit_gib: the limit in GiB.

    Raises:
        UserError: they would take more than `limit_gib`.
    """
    channels, height, width = image_shape
    gib = images * channels * height * width / 2**30
    if gib > limit_gib:
        raise UserError(
            f"{images} images of {channels}x{height}x{width} take {gib:.3g} GiB decoded, more than "
            f"memory_limit_gib={limit_gib:g}: raise the limit, make `size` smaller or use fewer images"
        )
