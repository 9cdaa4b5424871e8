"""Lightning data modules: images in memory or streamed from disk, a search split held out of the training images."""

from gnnrl_lightning.data.base import IMAGENET_MEAN, IMAGENET_STD, ImageData
from gnnrl_lightning.data.cifar import CIFAR10, CIFAR100
from gnnrl_lightning.data.digits import Digits
from gnnrl_lightning.data.image_files import ImageFiles
from gnnrl_lightning.data.image_folder import ImageFolder
from gnnrl_lightning.data.image_set import ImageSet, LoadedImages
from gnnrl_lightning.data.images import Draw, Images
from gnnrl_lightning.data.loader import Batch, BatchLoader, RawBatch
from gnnrl_lightning.data.streaming_image_folder import StreamingImageFolder

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Batch",
    "BatchLoader",
    "Digits",
    "Draw",
    "ImageData",
    "ImageFiles",
    "ImageFolder",
    "ImageSet",
    "Images",
    "LoadedImages",
    "RawBatch",
    "StreamingImageFolder",
]
