"""Labelled image files that worker processes decode batch by batch."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS

from gnnrl_lightning.data.decoding import Decoder, channels_first, read_rgb
from gnnrl_lightning.data.examples import Draw
from gnnrl_lightning.data.image_set import ImageSet
from gnnrl_lightning.data.resized_crop import ResizedCrop
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.seeds import generator_for

CHUNK = 256  # images per task of a thread: large enough to make the scheduling overhead negligible


def sorted_images(folder: str | Path) -> list[str]:
    """Return the images in and below a folder, links followed, in the order of torchvision's ImageFolder.

    Hidden files and folders, such as `.ipynb_checkpoints` and what macOS adds, are left out.

    Args:
        folder: The folder.

    Raises:
        UserError: A link leads to a folder above it, or what has the name of an image is no regular file.
    """
    found = sorted(_images_by_folder(str(folder), ()))
    return [os.path.join(place, name) for place, names in found for name in sorted(names)]


def _images_by_folder(folder: str, above: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """Yield folders with the names of the images in each; `above` are the real paths of the folders that led here."""
    real = os.path.realpath(folder)
    if real in above:
        raise UserError(f"{folder} is a link to a folder that contains it: remove the link")
    listed = visible(folder)
    images = [entry for entry in listed if entry.name.lower().endswith(IMG_EXTENSIONS) and not is_folder(entry)]
    for entry in images:
        if not entry.is_file():
            raise UserError(f"{entry.path} is no regular file: expected an image, not a pipe, device or broken link")
    yield folder, [entry.name for entry in images]
    for entry in listed:
        if is_folder(entry):
            yield from _images_by_folder(entry.path, (*above, real))


def visible(folder: str | Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder that are not hidden: their names do not begin with a dot."""
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a folder is a folder, or a link to one.

    Raises:
        UserError: It is one of several links in a circle.
    """
    try:
        return entry.is_dir()
    except OSError as error:
        raise UserError(f"{entry.path} cannot be read ({error.strerror}): remove it, or the circle of links") from error


@dataclass(frozen=True)
class ImageFiles:
    """Paths of images with their labels.

    Args:
        paths: Paths of the N files.
        labels: Class indices, int64, shape `(N,)`.
        decoder: Decodes images without augmentation.
        crop: Random crop for the images of batches that have a seed; None: no random crop.
        num_workers: Number of worker processes that decode batches, each up to two batches ahead; 0: decode in this
            process.
    """

    paths: tuple[str, ...]
    labels: Tensor
    decoder: Decoder
    crop: ResizedCrop | None = None
    num_workers: int = 0

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the decoded images."""
        return 3, *self.decoder.shape

    def subset(self, indices: Tensor) -> "ImageFiles":
        """The files at `indices` (int64, shape `(n,)`), in that order."""
        return replace(self, paths=self._paths(indices), labels=self.labels[indices])

    def in_memory(self) -> ImageSet:
        """Decode all images, using one thread per core.

        Raises:
            UserError: An image cannot be read.
        """
        images = np.empty((len(self), *self.image_shape), dtype=np.uint8)

        def decode_chunk(start: int) -> None:
            for index in range(start, min(start + CHUNK, len(self))):
                images[index] = self.decoder(self.paths[index])

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(decode_chunk, range(0, len(self), CHUNK)):
                pass
        return ImageSet(torch.from_numpy(images), self.labels)

    def read(self, draws: Iterable[Draw]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the pixels and the labels of each batch; they do not depend on the number of workers.

        Workers receive the paths of one batch at a time, to save memory.

        Raises:
            UserError: An image cannot be read.
        """
        asked: deque[Draw] = deque()

        def sampled() -> Iterator[tuple[tuple[str, ...], int | None]]:
            for draw in draws:
                asked.append(draw)
                yield self._paths(draw.indices), draw.seed

        loader = DataLoader(
            _Decoding(self.decoder, self.crop),
            batch_size=None,
            sampler=sampled(),
            num_workers=self.num_workers,
            generator=torch.Generator(),  # otherwise each pass draws from the global generator
        )
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch, self.labels[asked.popleft().indices]

    def _paths(self, indices: Tensor) -> tuple[str, ...]:
        return tuple(self.paths[index] for index in indices.tolist())


@dataclass(frozen=True)
class _Decoding(Dataset[Tensor | UserError]):
    """The data set of a worker: maps paths and seed of a batch to its pixels, uint8, shape `(B, 3, H, W)`."""

    decoder: Decoder
    crop: ResizedCrop | None

    def __getitem__(self, batch: tuple[tuple[str, ...], int | None]) -> Tensor | UserError:
        paths, seed = batch
        try:
            return torch.from_numpy(np.stack(list(self._decoded(paths, seed))))
        except UserError as error:  # returned, because a raised one would carry the worker's traceback in its message
            return error

    def _decoded(self, paths: tuple[str, ...], seed: int | None) -> Iterator[np.ndarray]:
        if self.crop is None or seed is None:
            yield from map(self.decoder, paths)
            return
        generator = generator_for(seed)  # differs from the generator of the flips, which uses the seed itself
        for path in paths:
            yield channels_first(self.crop(read_rgb(path), self.decoder.shape, generator))
