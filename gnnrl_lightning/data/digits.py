"""The handwritten digits of scikit-learn: real images that need no download."""

import numpy as np
import torch

from gnnrl_lightning.data.image_data import ImageData
from gnnrl_lightning.data.image_set import ImageSet, LoadedImages
from gnnrl_lightning.data.splits import stratified_split

TEST_IMAGES = 360
TEST_SEED = 0


class Digits(ImageData):
    """1,797 handwritten digits of 8 x 8 pixels, one channel, ten classes.

    The test images are a fixed, stratified set of 360; the holdout is taken from the other 1,437.

    Args:
        batch_size: Training images per batch on each device.
        eval_batch_size: Images per batch in validation, test and scoring.
        holdout_size: Size of the holdout: a fraction of the training images if below 1, else a number.
        split_seed: Seed of the holdout.
        pad: Zero padding of the random crop, in pixels; 0: no random crop.
        flip: Whether to mirror half of the training images; off by default, since mirrored digits are not digits.
        cutout: Side of a square of each training image that is replaced by the mean, in pixels; 0: none.
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel, for pixels in [0, 1].
        memory_limit_gib: Maximum memory of the decoded images, in GiB.
        seed: Seed of the order and the augmentation of the training images; jobs have their own.
    """

    name = "digits"

    def __init__(
        self,
        batch_size: int = 64,
        eval_batch_size: int = 512,
        holdout_size: float = 0.2,
        split_seed: int = 0,
        pad: int = 1,
        flip: bool = False,
        cutout: int = 0,
        mean: tuple[float, ...] = (0.305,),
        std: tuple[float, ...] = (0.376,),
        memory_limit_gib: float = 2.0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            holdout_size=holdout_size,
            split_seed=split_seed,
            pad=pad,
            flip=flip,
            cutout=cutout,
            mean=mean,
            std=std,
            memory_limit_gib=memory_limit_gib,
            seed=seed,
        )

    def load(self) -> LoadedImages:
        """Scale the grey levels from 0..16 to 0..255 and split off the test images."""
        from sklearn.datasets import load_digits  # slow to import and only needed here

        pixels, labels = load_digits(return_X_y=True)
        levels = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
        data = ImageSet(torch.from_numpy(levels), torch.from_numpy(labels).long())
        train, test = stratified_split(data.labels, TEST_IMAGES, TEST_SEED)
        return LoadedImages(data.subset(train), data.subset(test), tuple("0123456789"))
