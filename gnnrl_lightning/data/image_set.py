"""Decoded images in memory, and the check that they fit."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor

from gnnrl_lightning.data.images import Draw, Images
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

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def subset(self, indices: Tensor) -> "ImageSet":
        """The images at `indices` (int64, shape `(n,)`), copied, in that order."""
        return ImageSet(self.images[indices], self.labels[indices])

    def in_memory(self) -> "ImageSet":
        """The images themselves."""
        return self

    def read(self, draws: Iterable[Draw]) -> Iterator[Tensor]:
        """The pixels of one batch after the other; their augmentation is left to the device."""
        for draw in draws:
            yield self.images[draw.indices]


@dataclass(frozen=True)
class LoadedImages:
    """What a source of images gives: its two official splits and the names of its classes.

    Args:
        train: every training image, the search split's included.
        test: the test images.
        classes: names of the classes, by label.
    """

    train: Images
    test: Images
    classes: tuple[str, ...]


def check_fits(
    images: int,
    image_shape: tuple[int, int, int],
    limit_gib: float,
    remedy: str = "raise the limit, make `size` smaller or use fewer images",
) -> None:
    """Refuse to hold more decoded images in memory than the limit allows.

    Args:
        images: number of images that are to be decoded.
        image_shape: `(C, H, W)`, one byte an element.
        limit_gib: the limit in GiB.
        remedy: what the user can do about it.

    Raises:
        UserError: they would take more than `limit_gib`.
    """
    channels, height, width = image_shape
    gib = images * channels * height * width / 2**30
    if gib > limit_gib:
        raise UserError(
            f"{images} images of {channels}x{height}x{width} take {gib:.3g} GiB decoded, more than "
            f"memory_limit_gib={limit_gib:g}: {remedy}"
        )
