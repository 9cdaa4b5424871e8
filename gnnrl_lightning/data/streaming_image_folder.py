"""Folders of more images than fit into memory, ImageNet's for one."""

from dataclasses import replace
from typing import Any

from gnnrl_lightning.data.image_folder import ImageFolder
from gnnrl_lightning.data.image_set import LoadedImages, check_fits
from gnnrl_lightning.data.resized_crop import ResizedCrop
from gnnrl_lightning.errors import UserError


class StreamingImageFolder(ImageFolder):
    """An `ImageFolder` whose training and test images are read from disk, batch by batch, when they are needed.

    Folders, order, sizes and splits are those of `ImageFolder`: for the same `holdout_size` and `split_seed` the same
    images are held out. Only the holdout is decoded into memory (`memory_limit_gib` is for it), and what
    calibration asks for; worker processes decode all other images, each time anew.

    With a `size`, training images are random resized crops, as is usual for ImageNet. Without one, or without
    `crop_scale`, they are padded and cropped as in `ImageFolder`; `pad` is for that alone. Both ways `flip` mirrors
    half of them. Test images are resized and centre-cropped as in `ImageFolder`. Further arguments are those of
    `ImageFolder`.

    Args:
        root: The folder that has `train` and `test` (or `val`).
        num_workers: Processes that decode images, of each device; 0 decodes in the process that trains. Each has up
            to two batches ready in shared memory.
        crop_scale: Smallest and largest area of a random resized crop, as shares of the image's; None makes none.
        crop_ratio: Smallest and largest aspect ratio of a random resized crop, width by height.
        holdout_size: Images held out of the training ones: below 1 a fraction, else their
            number.
        **kwargs: Arguments of `ImageFolder`.
    """

    def __init__(
        self,
        root: str,
        num_workers: int = 4,
        crop_scale: tuple[float, float] | None = (0.08, 1.0),
        crop_ratio: tuple[float, float] = (3 / 4, 4 / 3),
        holdout_size: float = 5000,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, holdout_size=holdout_size, **kwargs)
        if num_workers < 0:
            raise UserError(f"num_workers={num_workers}: expected at least 0")
        self.num_workers = num_workers
        self.crop = None
        if self.size is not None and crop_scale is not None:
            self.crop = ResizedCrop(crop_scale, crop_ratio)
            self.pad = 0  # the workers crop

    def load(self) -> LoadedImages:
        """List the images.

        Raises:
            UserError: What `files` raises; the holdout exceeds the memory limit.
        """
        train, test, classes = self.files()
        held = self.held(len(train))
        remedy = "the holdout is in memory, raise the limit or make `holdout_size` smaller"
        check_fits(held, train.image_shape, self.memory_limit_gib, remedy)
        return LoadedImages(
            replace(train, crop=self.crop, num_workers=self.num_workers),
            replace(test, num_workers=self.num_workers),
            classes,
        )
