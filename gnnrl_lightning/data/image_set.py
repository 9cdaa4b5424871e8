"""Decoded images in memory, and the check of their memory limit."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gnnrl_lightning.data.examples import ExampleSet, Images
from gnnrl_lightning.errors import UserError


class ImageSet(ExampleSet):
    """Decoded images with their labels.

    Args:
        inputs: Pixels, uint8, shape `(N, C, H, W)`.
        targets: Class indices, int64, shape `(N,)`.

    Raises:
        UserError: They are no tensors of these types and shapes.
    """

    def __post_init__(self) -> None:
        for what, given, dtype in (("images", self.inputs, torch.uint8), ("labels", self.targets, torch.int64)):
            if not isinstance(given, Tensor) or given.dtype != dtype:
                kind = str(given.dtype) if isinstance(given, Tensor) else type(given).__name__
                raise UserError(f"{what} are {kind.removeprefix('torch.')}: expected a tensor of {str(dtype)[6:]}")
        if self.inputs.ndim != 4 or self.targets.shape != self.inputs.shape[:1]:
            raise UserError(
                f"images of shape {tuple(self.inputs.shape)} and labels of shape {tuple(self.targets.shape)}: "
                "expected (N, C, H, W) and (N,)"
            )

    @property
    def images(self) -> Tensor:
        """The pixels."""
        return self.inputs

    @property
    def labels(self) -> Tensor:
        """The class indices."""
        return self.targets

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.inputs.shape[1:]
        return channels, height, width

    def subset(self, indices: Tensor) -> "ImageSet":
        """The images at `indices` (int64, shape `(n,)`), copied, in that order."""
        return ImageSet(self.inputs[indices], self.targets[indices])


@dataclass(frozen=True)
class LoadedImages:
    """The two official splits of a data set, and its class names.

    Args:
        train: All training images, including the holdout.
        test: The test images.
        classes: Names of the classes, by label.
    """

    train: Images
    test: Images
    classes: tuple[str, ...]


def check_fits(
    images: int,
    image_shape: tuple[int, int, int],
    limit_gib: float,
    remedy: str = "raise the limit, reduce `size` or use fewer images",
) -> None:
    """Check that decoded images do not exceed a memory limit.

    Args:
        images: Number of images to decode.
        image_shape: `(C, H, W)`, one byte per element.
        limit_gib: Limit in GiB.
        remedy: Advice for the error message.

    Raises:
        UserError: The images exceed the limit.
    """
    channels, height, width = image_shape
    gib = images * channels * height * width / 2**30
    if gib > limit_gib:
        raise UserError(
            f"{images} images of {channels}x{height}x{width} take {gib:.3g} GiB decoded, more than "
            f"memory_limit_gib={limit_gib:g}: {remedy}"
        )
