"""What every split of a data module offers, whether its examples lie in memory or on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.trees import Tree, count, take


class Draw(NamedTuple):
    """A batch to read.

    Attributes:
        indices: Which examples, int64, shape `(B,)`.
        seed: Seed of the batch's augmentation; None leaves the inputs as they are.
    """

    indices: Tensor
    seed: int | None


class Examples(Protocol):
    """Inputs with their targets: `ExampleSet` and `ImageSet` have them in memory, `ImageFiles` on disk."""

    @property
    def targets(self) -> Tree:
        """The targets of all examples, the examples first."""
        ...

    def __len__(self) -> int:
        """The number of examples N."""
        ...

    def subset(self, indices: Tensor) -> Examples:
        """The examples at `indices` (int64, shape `(n,)`), in that order."""
        ...

    def in_memory(self) -> ExampleSet:
        """All of these examples, read."""
        ...

    def read(self, draws: Iterable[Draw]) -> Iterator[Tree]:
        """The inputs of one batch after the other.

        Nothing is read before the first batch is asked for.
        """
        ...


class Images(Examples, Protocol):
    """Labelled images of one size: `ImageSet` has them in memory, `ImageFiles` on disk."""

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
        inputs: A tensor, or nested tuples and dictionaries of tensors, with the N examples first. A network gets a
            tensor as its only argument, a tuple as its positional arguments, a dictionary as its keyword arguments.
        targets: Likewise; what they are the objective says.

    Raises:
        UserError: Two tensors differ in their number of examples, or there is none.
    """

    inputs: Tree
    targets: Tree

    def __post_init__(self) -> None:
        try:
            count((self.inputs, self.targets))
        except (ValueError, TypeError) as error:
            raise UserError(f"inputs and targets: {error}") from error

    def __len__(self) -> int:
        """The number of examples."""
        return count(self.targets)

    def subset(self, indices: Tensor) -> ExampleSet:
        """The examples at `indices` (int64, shape `(n,)`), copied, in that order."""
        return type(self)(take(self.inputs, indices), take(self.targets, indices))

    def in_memory(self) -> ExampleSet:
        """The examples themselves."""
        return self

    def read(self, draws: Iterable[Draw]) -> Iterator[Tree]:
        """The inputs of one batch after the other; their augmentation is left to the device."""
        for draw in draws:
            yield take(self.inputs, draw.indices)
