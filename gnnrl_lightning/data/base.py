"""The data module that every source of images shares."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from gnnrl_lightning.data.augmentation import crop_flip, draw_crop_flip
from gnnrl_lightning.data.image_set import ImageSet, LoadedImages, check_fits
from gnnrl_lightning.data.images import Images
from gnnrl_lightning.data.loader import Batch, BatchLoader, RawBatch
from gnnrl_lightning.data.splits import stratified_split
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.seeds import generator_for

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class _Splits(NamedTuple):
    train: Images
    search: ImageSet
    test: Images


class ImageData(LightningDataModule, ABC):
    """Labelled images with a search split that is held out of the training images and decoded into memory.

    A source of images is a subclass with a `load` method, and a name. After `setup()` there are `train` (the
    training images without the search split), `search` and `test`. The training loader shuffles and augments;
    validation reads the search split. Batches come as uint8 and are cropped, flipped and normalised on the device.

    Args:
        batch_size: training images in a batch, on each device.
        eval_batch_size: images in a batch of validation, test and scoring.
        search_size: images held out for the search: below 1 a fraction of the training images, else their
            number.
        split_seed: seed of the search split.
        pad: zero padding of the random crop, pixels; 0 crops nothing.
        flip: mirror half of the training images.
        mean: mean of each channel, of pixels in [0, 1].
        std: standard deviation of each channel, of pixels in [0, 1].
        memory_limit_gib: refuse images that take more than this, decoded, in GiB.
        seed: seed of the order and of the augmentation of the training images.
    """

    def __init__(
        self,
        batch_size: int = 128,
        eval_batch_size: int = 256,
        search_size: float = 0.1,
        split_seed: int = 0,
        pad: int = 4,
        flip: bool = True,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        memory_limit_gib: float = 2.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("eval_batch_size", eval_batch_size, 1),
            ("split_seed", split_seed, 0),
            ("pad", pad, 0),
            ("seed", seed, 0),
        ):
            if value < least:
                raise UserError(f"{name}={value}: expected at least {least}")
        if not search_size > 0 or (search_size >= 1 and search_size != int(search_size)):
            raise UserError(f"search_size={search_size}: expected a fraction between 0 and 1 or a number of images")
        if len(mean) != len(std) or min(std) <= 0:
            raise UserError(f"mean={mean} and std={std}: expected one of each for a channel, std above 0")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.search_size = search_size
        self.split_seed = split_seed
        self.pad = pad
        self.flip = flip
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.memory_limit_gib = memory_limit_gib
        self.seed = seed
        self._classes: tuple[str, ...] = ()
        self._splits: _Splits | None = None

    @abstractmethod
    def load(self) -> LoadedImages:
        """Both official splits, decoded or, as `ImageFiles`, on disk.

        Raises:
            UserError: the images are missing, unreadable, or larger than `memory_limit_gib`.
        """

    def setup(self, stage: str | None = None) -> None:
        """Load the images and hold out the search split; further calls do nothing.

        Args:
            stage: ignored, all splits are loaded together.

        Raises:
            UserError: what `load` raises; a search split that leaves no training images; another number of
                channels than `mean` and `std` have.
        """
        if self._splits is not None:
            return
        loaded = self.load()
        decoded = [images for images in (loaded.train, loaded.test) if isinstance(images, ImageSet)]
        check_fits(sum(map(len, decoded)), loaded.train.image_shape, self.memory_limit_gib)
        channels = loaded.train.image_shape[0]
        if channels != len(self.mean):
            raise UserError(f"{self.name} has images of {channels} channels, but mean and std have {len(self.mean)}")
        train, search = stratified_split(loaded.train.labels, self.held(len(loaded.train)), self.split_seed)
        self._classes = loaded.classes
        self._splits = _Splits(loaded.train.subset(train), loaded.train.subset(search).in_memory(), loaded.test)

    def held(self, images: int) -> int:
        """Size of the search split of so many training images."""
        return int(self.search_size if self.search_size >= 1 else self.search_size * images)

    def _split(self, name: str) -> _Splits:
        if self._splits is None:
            raise RuntimeError(f"{type(self).__name__}.{name}: call setup() first")
        return self._splits

    @property
    def train(self) -> Images:
        """The training images, without the search split."""
        return self._split("train").train

    @property
    def search(self) -> ImageSet:
        """The training images held out to score candidates."""
        return self._split("search").search

    @property
    def test(self) -> Images:
        """The test images."""
        return self._split("test").test

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by label."""
        self._split("train")
        return self._classes

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return self.train.image_shape

    def transform_record(self) -> dict[str, Any]:
        """What a deployed network has to do to an image, in plain JSON types.

        Pixels of `channels` channels, resized and cropped to `size` (height, width), become
        `(pixel * scale - mean) / std`; output i is the class `classes[i]`.
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

    def normalize(self, images: Tensor) -> Tensor:
        r"""Turn pixels into what the network reads, :math:`(x / 255 - \mu_c) / \sigma_c`.

        Args:
            images: uint8, shape `(N, C, H, W)`, on any device.

        Returns:
            float32, same shape and device.
        """
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        return images.float().div_(255).sub_(mean).div_(std)

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Random crop with zero padding `pad`, and random mirror images if `flip`.

        Args:
            images: uint8, shape `(N, C, H, W)`, on any device.
            generator: CPU generator; the same state gives the same crops on every device.

        Returns:
            uint8, same shape and device.
        """
        if self.pad == 0 and not self.flip:
            return images
        return crop_flip(images, self.pad, draw_crop_flip(len(images), self.pad, self.flip, generator))

    def calibration(self, images: int) -> Tensor:
        """Normalised training images to calibrate on, never of the search split.

        Args:
            images: how many; a fixed random choice, and fewer images are the first of more.

        Returns:
            float32, shape `(images, C, H, W)`, on the CPU.

        Raises:
            UserError: there are not that many training images.
        """
        if not 1 <= images <= len(self.train):
            raise UserError(f"{images} calibration images asked for: expected 1 to {len(self.train)}")
        chosen = torch.randperm(len(self.train), generator=generator_for(self.split_seed))[:images]
        return self.normalize(self.train.subset(chosen).in_memory().images)

    def _loader(self, data: Images, batch_size: int, shuffle_seed: int | None = None) -> BatchLoader:
        if self.trainer is None:
            return BatchLoader(data, batch_size, shuffle_seed)
        return BatchLoader(data, batch_size, shuffle_seed, self.trainer.global_rank, self.trainer.world_size)

    def train_dataloader(self) -> BatchLoader:
        """Shuffled and augmented training images."""
        return self._loader(self.train, self.batch_size, shuffle_seed=self.seed)

    def val_dataloader(self) -> BatchLoader:
        """The search split."""
        return self._loader(self.search, self.eval_batch_size)

    def test_dataloader(self) -> BatchLoader:
        """The test images."""
        return self._loader(self.test, self.eval_batch_size)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment (training batches) and normalise on the device; batches of other loaders pass unchanged."""
        if not isinstance(batch, RawBatch):
            return batch
        images = batch.images
        if batch.seed is not None:
            images = self.augment(images, torch.Generator().manual_seed(batch.seed))
        return Batch(self.normalize(images), batch.labels)
