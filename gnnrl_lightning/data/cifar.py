"""CIFAR-10 and CIFAR-100 through torchvision."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torchvision import datasets

from gnnrl_lightning.checks import as_path, flag
from gnnrl_lightning.data.image_data import ImageData
from gnnrl_lightning.data.image_set import ImageSet, LoadedImages
from gnnrl_lightning.errors import UserError, one_line


class CIFAR10(ImageData):
    """The 60,000 images of CIFAR-10, 32 x 32 pixels, three channels, ten classes.

    Mean and standard deviation default to those of ImageNet, which the published CIFAR ResNet weights expect.

    Args:
        root: Folder of torchvision's data set.
        download: Whether to download the files if they are missing.
        **kwargs: Other arguments of `ImageData`.
    """

    name = "cifar10"
    source: ClassVar[type[datasets.CIFAR10]] = datasets.CIFAR10

    def __init__(self, root: str = "data", download: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = str(as_path("root", root, "folder"))
        self.download = flag("download", download)

    def prepare_data(self) -> None:
        """Download the files if `download` is set; Lightning calls this in one process per machine.

        Raises:
            UserError: The download failed.
        """
        if not self.download:
            return
        try:
            self.source(self.root, train=True, download=True)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"downloading {self.name} to {Path(self.root).resolve()} failed: {one_line(error)}; try "
                "again, or copy the files there"
            ) from error

    def load(self) -> LoadedImages:
        """Read the files under `root`.

        Raises:
            UserError: The files are missing or damaged.
        """
        train, test = self._read(train=True), self._read(train=False)
        return LoadedImages(_image_set(train), _image_set(test), tuple(train.classes))

    def _read(self, train: bool) -> datasets.CIFAR10:
        try:
            return self.source(self.root, train=train)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"{self.name} is missing or damaged in {Path(self.root).resolve()}: set `root` to the folder "
                f"that contains {self.source.base_folder}, or `download: true`"
            ) from error


class CIFAR100(CIFAR10):
    """The 60,000 images of CIFAR-100, 32 x 32 pixels, three channels, a hundred classes.

    Args:
        root: Folder of torchvision's data set.
        download: Whether to download the files if they are missing.
        **kwargs: Other arguments of `ImageData`.
    """

    name = "cifar100"
    source: ClassVar[type[datasets.CIFAR10]] = datasets.CIFAR100


def _image_set(dataset: datasets.CIFAR10) -> ImageSet:
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    return ImageSet(images, torch.tensor(dataset.targets, dtype=torch.int64))
