"""Sized loaders that deal examples into batches."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gnnrl_lightning.data.examples import Draw, Examples
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.seeds import derived_seed, generator_for
from gnnrl_lightning.trees import Tree, take


class RawBatch(NamedTuple):
    """A batch as it leaves the loader.

    Attributes:
        inputs: As the split has them, images for instance uint8 `(B, C, H, W)`.
        targets: Likewise, labels for instance int64 `(B,)`.
        seed: Seed of the batch's augmentation; None leaves the inputs as they are.
    """

    inputs: Tree
    targets: Tree
    seed: int | None


class Batch(NamedTuple):
    """A batch as a network sees it.

    Attributes:
        inputs: Augmented and normalised.
        targets: What its outputs are compared with.
    """

    inputs: Tree
    targets: Tree


class BatchLoader:
    """Batches of examples, from memory or from disk.

    The examples of one epoch are dealt evenly: the sizes of any two batches differ by at most one, so there is
    neither a small last batch nor an example left out, and all ranks have the same number of batches. The order
    of an epoch depends on (seed, epoch) alone and the augmentation of a batch on (seed, epoch, batch, rank):
    a run that is resumed, at an epoch's end or within one, sees exactly the batches that the uninterrupted
    run would have seen.

    Args:
        data: The examples.
        batch_size: Largest number of examples in a batch (of each device).
        shuffle_seed: Seed of the order and of the augmentation; None keeps the order and augments nothing.
        rank: Index of this device.
        world_size: Number of devices that share the examples.
    """

    batch_sampler = None  # Lightning asks whoever has a sampler for it

    def __init__(
        self,
        data: Examples,
        batch_size: int,
        shuffle_seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.data = data
        self.shuffle_seed = shuffle_seed
        self.rank = rank
        self.world_size = world_size
        self._batches = -(-len(data) // (batch_size * world_size))
        if len(data) // world_size < max(self._batches, 1):
            raise UserError(
                f"{len(data)} examples for {world_size} devices in batches of {batch_size} leave a device "
                "without examples: use fewer devices or a larger batch_size"
            )
        self._epoch = 0
        self._served = 0
        self._resume_at = 0

    def __len__(self) -> int:
        """Batches in an epoch, the same on every rank."""
        return self._batches

    @property
    def sampler(self) -> "BatchLoader":
        """The loader itself: Lightning announces each epoch to `loader.sampler.set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order comes next."""
        self._epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """The number of batches of the current epoch that were handed out."""
        return {"served": self._served}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Begin the next epoch after the batches that were handed out before the checkpoint."""
        self._resume_at = state_dict["served"] % self._batches

    def order(self, epoch: int) -> Tensor:
        """Indices of this rank's examples in the order of one epoch, int64."""
        if self.shuffle_seed is None:
            order = torch.arange(len(self.data))
        else:
            order = torch.randperm(len(self.data), generator=generator_for(self.shuffle_seed, epoch))
        return order[self.rank :: self.world_size]

    def __iter__(self) -> Iterator[RawBatch]:
        """The batches of the epoch last set."""
        epoch, first, self._resume_at = self._epoch, self._resume_at, 0
        batches = torch.tensor_split(self.order(epoch), self._batches)
        draws = [Draw(batches[number], self._seed(epoch, number)) for number in range(first, self._batches)]
        for served, (draw, inputs) in enumerate(zip(draws, self.data.read(draws), strict=True), first + 1):
            self._served = served
            yield RawBatch(inputs, take(self.data.targets, draw.indices), draw.seed)

    def _seed(self, epoch: int, number: int) -> int | None:
        """Seed of the augmentation of a batch."""
        if self.shuffle_seed is None:
            return None
        return derived_seed(self.shuffle_seed, epoch, number, self.rank)
