"""Base class of the data modules with labelled images."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.checks import flag, real, reals, shown, whole
from gnnrl_lightning.data.augmentation import crop_flip, cut_out, draw_centres, draw_crop_flip
from gnnrl_lightning.data.example_data import ExampleData
from gnnrl_lightning.data.examples import Images
from gnnrl_lightning.data.image_set import ImageSet, LoadedImages, check_fits
from gnnrl_lightning.data.splits import stratified_split
from gnnrl_lightning.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageData(ExampleData):
    """Base class of data modules with labelled images and a stratified holdout, which is decoded into memory.

    A data set is a subclass with a name and a `load` method. Batches are uint8; they are cropped, flipped, cut
    out and normalised on the device.

    Args:
        batch_size: Training images per batch on each device.
        eval_batch_size: Images per batch in validation, test and scoring.
        holdout_size: Size of the holdout: a fraction of the training images if below 1, else a number.
        split_seed: Seed of the holdout.
        pad: Zero padding of the random crop, in pixels; 0: no random crop.
        flip: Whether to mirror half of the training images.
        cutout: Side of a square of each training image that is replaced by the mean, in pixels; 0: none.
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel, for pixels in [0, 1].
        memory_limit_gib: Maximum memory of the decoded images, in GiB.
        seed: Seed of the order and the augmentation of the training images; jobs have their own.

    Raises:
        UserError: A value is of another type, or out of range.
    """

    unit = "images"

    def __init__(
        self,
        batch_size: int = 128,
        eval_batch_size: int = 256,
        holdout_size: float = 0.1,
        split_seed: int = 0,
        pad: int = 4,
        flip: bool = True,
        cutout: int = 0,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        memory_limit_gib: float = 2.0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, holdout_size, split_seed, seed)
        self.pad = whole("pad", pad)
        self.cutout = whole("cutout", cutout)
        self.flip = flag("flip", flip)
        self.mean = reals("mean", mean)
        self.std = reals("std", std, 0, ends="(]")
        if len(self.mean) != len(self.std):
            raise UserError(f"mean is {shown(mean)} and std is {shown(std)}: expected one value per channel for each")
        self.memory_limit_gib = real("memory_limit_gib", memory_limit_gib, 0, ends="(]")
        self._classes: tuple[str, ...] = ()

    @abstractmethod
    def load(self) -> LoadedImages:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Load both official splits, decoded or as `ImageFiles` on disk.

        Raises:
            UserError: The images are missing, unreadable, or larger than `memory_limit_gib`.
        """

    def _check(self, loaded: LoadedImages) -> None:
        decoded = [images for images in (loaded.train, loaded.test) if isinstance(images, ImageSet)]
        check_fits(sum(map(len, decoded)), loaded.train.image_shape, self.memory_limit_gib)
        channels = loaded.train.image_shape[0]
        if channels != len(self.mean):
            raise UserError(
                f"the images of {self.name} have {channels} channels, but mean and std have {len(self.mean)} values: "
                "expected one for each"
            )
        if self.cutout > min(loaded.train.image_shape[1:]):
            shape = "x".join(map(str, loaded.train.image_shape[1:]))
            raise UserError(f"cutout is {self.cutout} with images of {shape} pixels: expected a smaller square, or 0")
        self._classes = loaded.classes

    def split(self, examples: Images, held: int) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take the holdout from each class in proportion to its size."""
        return stratified_split(examples.labels, held, self.split_seed)

    @property
    def holdout(self) -> ImageSet:
        """The holdout: decoded training images reserved for scoring candidates."""
        holdout = super().holdout
        assert isinstance(holdout, ImageSet)
        return holdout

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        self._split("train")  # raises before setup()
        return self._classes

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        images: Images = self.train  # pyright: ignore[reportAssignmentType]
        return images.image_shape

    def transform_record(self) -> dict[str, Any]:
        """Preprocessing that a deployed network needs, in plain JSON types.

        Images with `channels` channels are resized and cropped to `size` (height, width), and pixels are mapped to
        `(pixel * scale - mean) / std`. Output i is the class `classes[i]`.
        """
        channels, height, width = self.image_shape
        return {
            "dataset": self.name,
            "channels": channels,
            "size": [height, width],
            "scale": 1 / 255,
            "mean": list(self.mean),
            "std": list(self.std),
            "classes": list(self.classes),
        }

    def normalize(self, inputs: Tensor) -> Tensor:
        r"""Convert pixels to network inputs, :math:`(x / 255 - \mu_c) / \sigma_c`.

        Args:
            inputs: uint8, shape `(N, C, H, W)`, on any device.

        Returns:
            float32, same shape and device.
        """
        mean = torch.tensor(self.mean, device=inputs.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=inputs.device).view(-1, 1, 1)
        return inputs.float().div_(255).sub_(mean).div_(std)

    def augment(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Crop randomly with zero padding `pad`, mirror half of the images if `flip` is set, and replace `cutout`.

        Args:
            inputs: uint8, shape `(N, C, H, W)`, on any device.
            targets: Labels.
            generator: CPU generator; the same state gives the same augmentation on every device.

        Returns:
            uint8 images of the same shape and device, and the unchanged labels.
        """
        if self.pad > 0 or self.flip:
            inputs = crop_flip(inputs, self.pad, draw_crop_flip(len(inputs), self.pad, self.flip, generator))
        if self.cutout > 0:
            fill = torch.tensor(self.mean).mul(255).round().clamp(0, 255).to(inputs.dtype)
            images, _, height, width = inputs.shape
            inputs = cut_out(inputs, self.cutout, draw_centres(images, height, width, generator), fill)
        return inputs, targets
