"""Folders with one sub-folder of images for each class."""

from pathlib import Path
from typing import Any

import torch
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from gnnrl_lightning.data.decoding import Decoder, image_size
from gnnrl_lightning.data.image_data import ImageData
from gnnrl_lightning.data.image_files import ImageFiles
from gnnrl_lightning.data.image_set import LoadedImages, check_fits
from gnnrl_lightning.errors import UserError


class ImageFolder(ImageData):
    """RGB images in class folders: `root/train/<class>/*` and `root/test/<class>/*` (or `val` for `test`).

    Classes and images are ordered as in torchvision's ImageFolder. Images of another size than asked for are
    resized (shorter side, bilinear, antialiased) and centre-cropped; images that already have it are not
    resampled. Where there are both `test` and `val`, `test` is read. Images that do not fit into memory are for
    `StreamingImageFolder`. Further arguments are those of `ImageData`.

    Args:
        root: The folder that has `train` and `test` (or `val`).
        size: Height and width of the square images, pixels; None takes the images' own size, which must be
            the same for all.
        resize: Length of the shorter side before the centre crop, pixels (256 for a usual ImageNet network of
            `size: 224`); None means `size`.
        name: Name of the data set; None takes the folder's.
        **kwargs: Arguments of `ImageData`.
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
            raise UserError(f"resize={resize} with size={size}: expected a `size`, and a `resize` not below it")
        self.root = Path(root)
        self.size = size
        self.resize = resize
        self.name = name or self.root.resolve().name

    def files(self) -> tuple[ImageFiles, ImageFiles, tuple[str, ...]]:
        """The training and the test images, not decoded yet, and the names of the classes.

        Raises:
            UserError: A folder is missing or empty, the splits differ in their classes, or the first image, which
                tells the size where there is no `size`, cannot be read.
        """
        train_folder = self.root / "train"
        test_folder = self.root / "test" if (self.root / "test").is_dir() else self.root / "val"
        if not train_folder.is_dir() or not test_folder.is_dir():
            raise UserError(f"{self.root.resolve()} is no image folder: expected train/ and test/ (or val/) in it")
        classes, train, train_labels = _listed(train_folder)
        test_classes, test, test_labels = _listed(test_folder)
        if classes != test_classes:
            differing = ", ".join(sorted(set(classes) ^ set(test_classes))[:5])
            raise UserError(f"{train_folder} and {test_folder} differ in their class folders: {differing}")
        shape = (self.size, self.size) if self.size else image_size(train[0])
        decoder = Decoder(shape, self.resize or self.size)
        return ImageFiles(train, train_labels, decoder), ImageFiles(test, test_labels, decoder), classes

    def load(self) -> LoadedImages:
        """Decode all images, in as many threads as there are cores.

        Raises:
            UserError: What `files` raises; an image cannot be read, the sizes differ, or the images exceed the
                memory limit.
        """
        train, test, classes = self.files()
        remedy = "raise the limit, make `size` smaller, or stream them with data.StreamingImageFolder"
        check_fits(len(train) + len(test), train.image_shape, self.memory_limit_gib, remedy)
        return LoadedImages(train.in_memory(), test.in_memory(), classes)


def _listed(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...], torch.Tensor]:
    """Class names, and the path and label of every image, in torchvision's order."""
    try:
        classes, labels = find_classes(folder)
        samples = make_dataset(folder, labels, extensions=IMG_EXTENSIONS)
    except FileNotFoundError as error:
        raise UserError(f"{folder} has no images, or a class folder without any: {error}") from error
    paths = tuple(path for path, _ in samples)
    return tuple(classes), paths, torch.tensor([label for _, label in samples], dtype=torch.int64)
