"""Image folders that do not fit into memory, such as ImageNet."""

from dataclasses import replace
from typing import Any

from gnnrl_lightning.checks import whole
from gnnrl_lightning.data.image_folder import ImageFolder
from gnnrl_lightning.data.image_set import LoadedImages, check_fits
from gnnrl_lightning.data.resized_crop import ResizedCrop


class StreamingImageFolder(ImageFolder):
    """An `ImageFolder` that reads training and test images from disk, batch by batch.

    Folders, order, sizes and splits are those of `ImageFolder`; the same `holdout_size` and `split_seed` give the same
    holdout. Only the holdout (limited by `memory_limit_gib`) and the calibration images are decoded into memory; worker
    processes decode all other images each time they are read.

    If `size` and `crop_scale` are set, training images are random resized crops, as is usual for ImageNet. Otherwise
    they are padded by `pad` and cropped as in `ImageFolder`. In both cases `flip` mirrors half of them. Test images
    are resized and centre-cropped as in `ImageFolder`.

    Args:
        root: Folder that contains `train` and `test` (or `val`).
        num_workers: Number of worker processes per device that decode images, each up to two batches ahead in shared
            memory; 0: decode in the training process.
        crop_scale: Smallest and largest area of a random resized crop, as shares of the image's area; None: no random
            resized crops.
        crop_ratio: Smallest and largest aspect ratio (width / height) of a random resized crop.
        holdout_size: Size of the holdout: a fraction of the training images if below 1, else a number.
        **kwargs: Other arguments of `ImageFolder`.
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
        self.num_workers = whole("num_workers", num_workers)
        self.crop = None
        if self.size is not None and crop_scale is not None:
            self.crop = ResizedCrop(crop_scale, crop_ratio)
            self.pad = 0  # the workers crop

    def load(self) -> LoadedImages:
        """List the images.

        Raises:
            UserError: `files` fails, or the holdout exceeds the memory limit.
        """
        train, test, classes = self.files()
        held = self.held(len(train))
        remedy = "the holdout is kept in memory; raise the limit or reduce `holdout_size`"
        check_fits(held, train.image_shape, self.memory_limit_gib, remedy)
        return LoadedImages(
            replace(train, crop=self.crop, num_workers=self.num_workers),
            replace(test, num_workers=self.num_workers),
            classes,
        )
