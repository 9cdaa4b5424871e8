"""The loader that splits examples into batches."""

from collections.abc import Iterator, Sized
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gnnrl_lightning.checks import as_seed, shown, whole
from gnnrl_lightning.data.examples import Draw, Examples
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.seeds import derived_seed, generator_for
from gnnrl_lightning.trees import Tree


class RawBatch(NamedTuple):
    """A batch from the loader.

    Attributes:
        inputs: Inputs in the format of the split; images, for example, are uint8 `(B, C, H, W)`.
        targets: Targets in the format of the split; labels, for example, are int64 `(B,)`.
        seed: Seed of the batch's augmentation; None: no augmentation.
    """

    inputs: Tree
    targets: Tree
    seed: int | None


class Batch(NamedTuple):
    """A batch for the network.

    Attributes:
        inputs: Augmented and normalised inputs.
        targets: Targets of the network's outputs.
    """

    inputs: Tree
    targets: Tree


class BatchLoader:
    """Batches of examples, from memory or from disk.

    The batch sizes of an epoch differ by at most one, so there is no small last batch and no example is dropped. All
    ranks have the same number of batches. The order of an epoch depends only on (seed, epoch), and the augmentation of
    a batch only on (seed, epoch, batch, rank). A resumed run therefore reads exactly the same batches as an
    uninterrupted one, even if it was interrupted within an epoch.

    Args:
        data: The examples.
        batch_size: Maximum number of examples per batch on each device.
        shuffle_seed: Seed of the order and the augmentation; None: neither shuffle nor augment.
        rank: Index of this device.
        world_size: Number of devices that share the examples.
    """

    batch_sampler = None  # Lightning reads this attribute of loaders that have a sampler

    def __init__(
        self,
        data: Examples,
        batch_size: int,
        shuffle_seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not isinstance(data, Sized):
            raise UserError(f"data is {shown(data)}: expected examples, such as the split `train` of a data module")
        batch_size, world_size = whole("batch_size", batch_size, 1), whole("world_size", world_size, 1)
        whole("rank", rank, 0, world_size - 1)
        if shuffle_seed is not None:
            as_seed("shuffle_seed", shuffle_seed)
        self.data = data
        self.shuffle_seed = shuffle_seed
        self.rank = rank
        self.world_size = world_size
        self._batches = -(-len(data) // (batch_size * world_size))
        if len(data) // world_size < max(self._batches, 1):
            raise UserError(
                f"with {len(data)} examples, {world_size} devices and a batch_size of {batch_size}, a device has no "
                "examples: use fewer devices or a larger batch_size"
            )
        self._epoch = 0
        self._served = 0
        self._resume_at = 0

    def __len__(self) -> int:
        """Number of batches per epoch, the same on every rank."""
        return self._batches

    @property
    def sampler(self) -> "BatchLoader":
        """The loader itself, because Lightning calls `loader.sampler.set_epoch` at the start of each epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration over the loader."""
        self._epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Number of batches of the current epoch that have been read."""
        return {"served": self._served}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Skip the batches that were read before the checkpoint in the next iteration over the loader."""
        self._resume_at = state_dict["served"] % self._batches

    def order(self, epoch: int) -> Tensor:
        """Indices (int64) of this rank's examples in the order of an epoch."""
        if self.shuffle_seed is None:
            order = torch.arange(len(self.data))
        else:
            order = torch.randperm(len(self.data), generator=generator_for(self.shuffle_seed, epoch))
        return order[self.rank :: self.world_size]

    def __iter__(self) -> Iterator[RawBatch]:
        """Yield the batches of the current epoch."""
        epoch, first, self._resume_at = self._epoch, self._resume_at, 0
        batches = torch.tensor_split(self.order(epoch), self._batches)
        draws = [Draw(batches[number], self._seed(epoch, number)) for number in range(first, self._batches)]
        for served, (draw, batch) in enumerate(zip(draws, self.data.read(draws), strict=True), first + 1):
            self._served = served
            yield RawBatch(*batch, draw.seed)

    def _seed(self, epoch: int, number: int) -> int | None:
        """Seed of a batch's augmentation."""
        if self.shuffle_seed is None:
            return None
        return derived_seed(self.shuffle_seed, epoch, number, self.rank)
