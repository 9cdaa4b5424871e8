"""The handwritten digits that come with scikit-learn: real images without a download."""

import numpy as np
import torch

from gnnrl_lightning.data.image_data import ImageData
from gnnrl_lightning.data.image_set import ImageSet, LoadedImages
from gnnrl_lightning.data.splits import stratified_split

TEST_IMAGES = 360
TEST_SEED = 0


class Digits(ImageData):
    """1,797 handwritten digits of 8 x 8 pixels, one channel, ten classes.

    360 of them, stratified and always the same, are the test images; the holdout is taken from the
    other 1,437.

    Args:
        batch_size: Training images in a batch, on each device.
        eval_batch_size: Images in a batch of validation, test and scoring.
        holdout_size: Images held out of the training ones: below 1 a fraction, else their
            number.
        split_seed: Seed of the holdout.
        pad: Zero padding of the random crop, pixels; 0 crops nothing.
        flip: Mirror half of the training images (mirrored digits are other signs, hence off).
        mean: Mean of each channel, of pixels in [0, 1].
        std: Standard deviation of each channel, of pixels in [0, 1].
        memory_limit_gib: Refuse images that take more than this, decoded, in GiB.
        seed: Seed of the order and of the augmentation of the training images.
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
            mean=mean,
            std=std,
            memory_limit_gib=memory_limit_gib,
            seed=seed,
        )

    def load(self) -> LoadedImages:
        """Scale the seventeen grey levels 0..16 to 0..255 and hold out the test images."""
        from sklearn.datasets import load_digits  # takes long to import, and only this needs it

        pixels, labels = load_digits(return_X_y=True)
        levels = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
        data = ImageSet(torch.from_numpy(levels), torch.from_numpy(labels).long())
        train, test = stratified_split(data.labels, TEST_IMAGES, TEST_SEED)
        return LoadedImages(data.subset(train), data.subset(test), tuple("0123456789"))
