"""Image folders with one sub-folder per class."""

from pathlib import Path
from typing import Any

import torch
from torchvision.datasets.folder import IMG_EXTENSIONS

from gnnrl_lightning.checks import as_path, instance, whole
from gnnrl_lightning.data.decoding import Decoder, image_size
from gnnrl_lightning.data.image_data import ImageData
from gnnrl_lightning.data.image_files import ImageFiles, is_folder, sorted_images, visible
from gnnrl_lightning.data.image_set import LoadedImages, check_fits
from gnnrl_lightning.errors import UserError

LARGEST_SIDE = 2**15
"""Pixels of a side."""


class ImageFolder(ImageData):
    """RGB images in class folders: `root/train/<class>/*` and `root/test/<class>/*` (or `val` for `test`).

    Classes and images are ordered as in torchvision's ImageFolder; hidden files and folders are left out. Images are
    resized (shorter side, bilinear, antialiased) and centre-cropped to `size`, unless they already have that size. If
    there are both `test` and `val`, `test` is used. Use `StreamingImageFolder` for images that do not fit into memory.

    Args:
        root: Folder that contains `train` and `test` (or `val`).
        size: Height and width of the square images, in pixels; None: the size of the images, which must all have the
            same size.
        resize: Length of the shorter side before the centre crop, in pixels (256 is usual for ImageNet networks with
            `size: 224`); None: `size`.
        name: Name of the data set; None: the name of the folder.
        **kwargs: Other arguments of `ImageData`.
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
        self.root = as_path("root", root, "folder")
        self.size = None if size is None else whole("size", size, 1, LARGEST_SIDE, ", in pixels, or null")
        self.resize = None if resize is None else whole("resize", resize, 1, LARGEST_SIDE, ", in pixels, or null")
        if resize is not None and (size is None or resize < size):
            raise UserError(
                f"resize is {resize} with a size of {size}: expected a `size`, and a `resize` of at least `size`"
            )
        self.name = self.root.resolve().name if name in (None, "") else instance("name", name, str, "text, or None")

    def files(self) -> tuple[ImageFiles, ImageFiles, tuple[str, ...]]:
        """List the training and test images, without decoding them, and the class names.

        Raises:
            UserError: A folder is missing or empty, there is one class only, the splits differ in their classes, or
                `size` is None and the first image cannot be read.
        """
        train_folder = self.root / "train"
        test_folder = self.root / "test" if (self.root / "test").is_dir() else self.root / "val"
        if not train_folder.is_dir() or not test_folder.is_dir():
            raise UserError(f"{self.root.resolve()} is not an image folder: expected train/ and test/ (or val/) in it")
        classes, train, train_labels = _listed(train_folder)
        test_classes, test, test_labels = _listed(test_folder)
        if classes != test_classes:
            differing = ", ".join(sorted(set(classes) ^ set(test_classes))[:5])
            raise UserError(
                f"{train_folder} and {test_folder} differ in their class folders: {differing}; expected "
                "the same in both"
            )
        if len(classes) == 1:
            raise UserError(
                f"{train_folder} has one class folder only, {classes[0]}: expected at least two, for any network would "
                "be right; put the images of each class into a folder of its own"
            )
        shape = (self.size, self.size) if self.size else image_size(train[0])
        decoder = Decoder(shape, self.resize or self.size)
        return ImageFiles(train, train_labels, decoder), ImageFiles(test, test_labels, decoder), classes

    def load(self) -> LoadedImages:
        """Decode all images, using one thread per core.

        Raises:
            UserError: `files` fails, an image cannot be read, the sizes differ, or the images exceed the memory limit.
        """
        train, test, classes = self.files()
        remedy = "raise the limit, reduce `size`, or stream the images with data.StreamingImageFolder"
        check_fits(len(train) + len(test), train.image_shape, self.memory_limit_gib, remedy)
        return LoadedImages(train.in_memory(), test.in_memory(), classes)

    def transform_record(self) -> dict[str, Any]:
        """Preprocessing as of `ImageData`; `resize` is the shorter side before the centre crop, null: images are whole.

        A deployed network that reads images which were resized otherwise sees objects of another size.
        """
        return {**super().transform_record(), "resize": self.resize or self.size}


def _listed(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...], torch.Tensor]:
    """Class names, paths and labels, in torchvision's order."""
    classes = sorted(entry.name for entry in visible(folder) if is_folder(entry))
    images = [sorted_images(folder / name) for name in classes]
    empty = [name for name, found in zip(classes, images, strict=True) if not found]
    if not classes or empty:
        what = f"has no images in {', '.join(empty[:5])}" if classes else "has no class folders"
        raise UserError(f"{folder} {what}: expected folders of {', '.join(IMG_EXTENSIONS)} files, one for each class")
    labels = [label for label, found in enumerate(images) for _ in found]
    return tuple(classes), tuple(path for found in images for path in found), torch.tensor(labels, dtype=torch.int64)
