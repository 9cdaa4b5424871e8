"""Lightning data modules: examples in memory or images streamed from disk, with a holdout of the training examples."""

from gnnrl_lightning.data.cifar import CIFAR10, CIFAR100
from gnnrl_lightning.data.dataset_examples import DatasetExamples
from gnnrl_lightning.data.datasets import Datasets
from gnnrl_lightning.data.diabetes import Diabetes
from gnnrl_lightning.data.digit_pixels import DigitPixels
from gnnrl_lightning.data.digits import Digits
from gnnrl_lightning.data.example_data import ExampleData, LoadedExamples
from gnnrl_lightning.data.examples import Draw, Examples, ExampleSet, Images
from gnnrl_lightning.data.from_data_module import FromDataModule
from gnnrl_lightning.data.image_data import IMAGENET_MEAN, IMAGENET_STD, ImageData
from gnnrl_lightning.data.image_files import ImageFiles
from gnnrl_lightning.data.image_folder import ImageFolder
from gnnrl_lightning.data.image_set import ImageSet, LoadedImages
from gnnrl_lightning.data.loader import Batch, BatchLoader, RawBatch
from gnnrl_lightning.data.streaming_image_folder import StreamingImageFolder

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Batch",
    "BatchLoader",
    "DatasetExamples",
    "Datasets",
    "Diabetes",
    "DigitPixels",
    "Digits",
    "Draw",
    "ExampleData",
    "ExampleSet",
    "Examples",
    "FromDataModule",
    "ImageData",
    "ImageFiles",
    "ImageFolder",
    "ImageSet",
    "Images",
    "LoadedExamples",
    "LoadedImages",
    "RawBatch",
    "StreamingImageFolder",
]
