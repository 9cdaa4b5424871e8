"""The interface of a split of a data module, in memory or on disk, and the split in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.trees import Tree, count, take


class Draw(NamedTuple):
    """A batch to read.

    Attributes:
        indices: Indices of the examples, int64, shape `(B,)`.
        seed: Seed of the batch's augmentation; None: no augmentation.
    """

    indices: Tensor
    seed: int | None


class Examples(Protocol):
    """Inputs with their targets: `ExampleSet` and `ImageSet` hold them in memory, others read them when asked."""

    def __len__(self) -> int:
        """Number of examples N."""
        ...

    def subset(self, indices: Tensor) -> Examples:
        """The examples at `indices` (int64, shape `(n,)`), in that order."""
        ...

    def in_memory(self) -> ExampleSet:
        """Read all examples into memory."""
        ...

    def read(self, draws: Iterable[Draw]) -> Iterator[tuple[Tree, Tree]]:
        """Yield the inputs and the targets of each batch; batches are read lazily."""
        ...


class Images(Examples, Protocol):
    """Labelled images of one size: `ImageSet` holds them in memory, `ImageFiles` on disk."""

    @property
    def labels(self) -> Tensor:
        """Class indices, int64, shape `(N,)`."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        ...

    def subset(self, indices: Tensor) -> Images:
        """The images at `indices` (int64, shape `(n,)`), in that order."""
        ...


@dataclass(frozen=True)
class ExampleSet:
    """Inputs with their targets, in memory.

    Args:
        inputs: A tensor, or nested tuples and dictionaries of tensors; the first dimension is the N examples. A tensor
            is passed to the network as its only argument, a tuple as positional arguments, a dictionary as keyword
            arguments.
        targets: Likewise; the objective defines their meaning.

    Raises:
        UserError: Tensors differ in their number of examples, or there are none.
    """

    inputs: Tree
    targets: Tree

    def __post_init__(self) -> None:
        try:
            for tree in (self.inputs, self.targets, (self.inputs, self.targets)):
                count(tree)
        except (ValueError, TypeError) as error:
            raise UserError(
                f"inputs and targets: {one_line(error)}; expected as many of both, in tensors: use torch.as_tensor"
            ) from error

    def __len__(self) -> int:
        """Number of examples."""
        return count(self.targets)

    def subset(self, indices: Tensor) -> ExampleSet:
        """The examples at `indices` (int64, shape `(n,)`), copied, in that order."""
        return type(self)(take(self.inputs, indices), take(self.targets, indices))

    def in_memory(self) -> ExampleSet:
        """Return the split itself."""
        return self

    def read(self, draws: Iterable[Draw]) -> Iterator[tuple[Tree, Tree]]:
        """Yield the inputs and the targets of each batch; the data module augments them on the device."""
        for draw in draws:
            yield take(self.inputs, draw.indices), take(self.targets, draw.indices)
