"""Folders with one sub-folder of images for each class."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset
from torchvision.transforms import functional as TF

from gnnrl_lightning.data.base import ImageData
from gnnrl_lightning.data.image_set import ImageSet, LoadedImages, check_fits
from gnnrl_lightning.errors import UserError

CHUNK = 256  # images a thread decodes at a time: large enough that handing them out costs nothing

Samples = Sequence[tuple[str, int]]


class ImageFolder(ImageData):
    """RGB images in class folders: `root/train/<class>/*` and `root/test/<class>/*` (or `val` for `test`).

    Classes and images are ordered as in torchvision's ImageFolder. Images of another size than asked for are
    resized (shorter side, bilinear, antialiased) and centre-cropped; images that already have it are not
    resampled. Where there are both `test` and `val`, `test` is read. Further arguments are those of
    `ImageData`.

    Args:
        root: the folder that has `train` and `test` (or `val`).
        size: height and width of the square images, pixels; None takes the images' own size, which must be
            the same for all.
        resize: length of the shorter side before the centre crop, pixels (256 for a usual ImageNet network of
            `size: 224`); None means `size`.
        name: name of the data set; None takes the folder's.
        **kwargs: arguments of `ImageData`.
    """

    def __init__(
        self,
        root: str,
        size: int | None = None,
        resize: int | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if size is not None and size < 1:
            raise UserError(f"size={size}: expected at least 1 pixel")
        if resize is not None and (size is None or resize < size):
            raise UserError(
                f"resize={resize} with size={size}: expected a `size`, and a `resize` not below it"
            )
        self.root = Path(root)
        self.size = size
        self.resize = resize
        self.name = name or self.root.resolve().name

    def load(self) -> LoadedImages:
        """Decode all images, in as many threads as there are cores.

        Raises:
            UserError: a folder is missing or empty, the splits differ in their classes, an image cannot be
                read, the sizes differ, or the images exceed the memory limit.
        """
        train_folder = self.root / "train"
        test_folder = self.root / "test" if (self.root / "test").is_dir() else self.root / "val"
        if not train_folder.is_dir() or not test_folder.is_dir():
            raise UserError(
                f"{self.root.resolve()} is no image folder: expected train/ and test/ (or val/) in it"
            )
        classes, train = _samples(train_folder)
        test_classes, test = _samples(test_folder)
        if classes != test_classes:
            differing = ", ".join(sorted(set(classes) ^ set(test_classes))[:5])
            raise UserError(f"{train_folder} and {test_folder} differ in their class folders: {differing}")
        shape = (self.size, self.size) if self.size else _size(train[0][0])
        check_fits(len(train) + len(test), (3, *shape), self.memory_limit_gib)
        return LoadedImages(self._decode(train, shape), self._decode(test, shape), tuple(classes))

    def _decode(self, samples: Samples, shape: tuple[int, int]) -> ImageSet:
        images = np.empty((len(samples), 3, *shape), dtype=np.uint8)

        def decode_chunk(start: int) -> None:
            for index in range(start, min(start + CHUNK, len(samples))):
                images[index] = self._read(samples[index][0], shape).transpose(2, 0, 1)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(decode_chunk, range(0, len(samples), CHUNK)):
                pass
        labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
        return ImageSet(torch.from_numpy(images), labels)

    def _read(self, path: str, shape: tuple[int, int]) -> np.ndarray:
        """One image as uint8 `(H, W, 3)`."""
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except OSError as error:
            raise UserError(f"{path} cannot be read as an image: {error}") from error
        if self.size is None:
            if (image.height, image.width) != shape:
                raise UserError(
                    f"{path} is {image.height}x{image.width}, others are {shape[0]}x{shape[1]}: set `size`"
                )
            return np.asarray(image)
        side = self.resize or self.size
        if min(image.size) != side:
            image = TF.resize(image, [side], antialias=True)
        if image.size != (self.size, self.size):
            image = TF.center_crop(image, [self.size, self.size])
        return np.asarray(image)


def _samples(folder: Path) -> tuple[list[str], Samples]:
    """Class names, and (path, label) of every image, in torchvision's order."""
    try:
        classes, labels = find_classes(folder)
        samples = make_dataset(folder, labels, extensions=IMG_EXTENSIONS)
    except FileNotFoundError as error:
        raise UserError(f"{folder} has no images, or a class folder without any: {error}") from error
    return classes, samples


def _size(path: str) -> tuple[int, int]:
    """Height and width of an image file."""
    try:
        with Image.open(path) as file:
            return file.height, file.width
    except OSError as error:
        raise UserError(f"{path} cannot be read as an image: {error}") from error
