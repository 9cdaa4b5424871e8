"""Labelled image files that are decoded when they are read, batch by batch in worker processes."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gnnrl_lightning.data.decoding import Decoder, channels_first, read_rgb
from gnnrl_lightning.data.examples import Draw
from gnnrl_lightning.data.image_set import ImageSet
from gnnrl_lightning.data.resized_crop import ResizedCrop
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.seeds import generator_for

CHUNK = 256  # images a thread decodes at a time: large enough that handing them out costs nothing


@dataclass(frozen=True)
class ImageFiles:
    """Paths of images with their labels.

    Args:
        paths: The N files.
        labels: Class indices, int64, shape `(N,)`.
        decoder: From a file to pixels, of images that are not augmented.
        crop: Random crop of the images of batches that have a seed; None decodes them like all others.
        num_workers: Processes that decode batches, each up to two of them ahead; 0 decodes in this one.
    """

    paths: tuple[str, ...]
    labels: Tensor
    decoder: Decoder
    crop: ResizedCrop | None = None
    num_workers: int = 0

    def __len__(self) -> int:
        """The number of images."""
        return len(self.paths)

    @property
    def targets(self) -> Tensor:
        """The class indices."""
        return self.labels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image, once it is decoded."""
        return 3, *self.decoder.shape

    def subset(self, indices: Tensor) -> "ImageFiles":
        """The files at `indices` (int64, shape `(n,)`), in that order."""
        return replace(self, paths=self._paths(indices), labels=self.labels[indices])

    def in_memory(self) -> ImageSet:
        """All of these images, decoded in as many threads as there are cores.

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

    def read(self, draws: Iterable[Draw]) -> Iterator[Tensor]:
        """The pixels of one batch after the other, the same for any number of workers.

        Workers get the paths of a batch, not the list of all: they hold nothing but the batches that they decode.

        Raises:
            UserError: An image cannot be read.
        """
        loader = DataLoader(
            _Decoding(self.decoder, self.crop),
            batch_size=None,
            sampler=((self._paths(draw.indices), draw.seed) for draw in draws),
            num_workers=self.num_workers,
            generator=torch.Generator(),  # else each pass would draw from the global one
        )
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch

    def _paths(self, indices: Tensor) -> tuple[str, ...]:
        return tuple(self.paths[index] for index in indices.tolist())


@dataclass(frozen=True)
class _Decoding(Dataset[Tensor | UserError]):
    """What a worker does: paths and seed of a batch -> its pixels, uint8, shape `(B, 3, H, W)`."""

    decoder: Decoder
    crop: ResizedCrop | None

    def __getitem__(self, batch: tuple[tuple[str, ...], int | None]) -> Tensor | UserError:
        paths, seed = batch
        try:
            return torch.from_numpy(np.stack(list(self._decoded(paths, seed))))
        except UserError as error:  # returned: raised, it would arrive with the worker's traceback as its message
            return error

    def _decoded(self, paths: tuple[str, ...], seed: int | None) -> Iterator[np.ndarray]:
        if self.crop is None or seed is None:
            yield from map(self.decoder, paths)
            return
        generator = generator_for(seed)  # not the seed itself, from which the flips on the device are drawn
        for path in paths:
            yield channels_first(self.crop(read_rgb(path), self.decoder.shape, generator))
