"""What every split of a data module offers, whether its images lie in memory or on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from gnnrl_lightning.data.image_set import ImageSet


class Draw(NamedTuple):
    """A batch to read.

    Attributes:
        indices: which images, int64, shape `(B,)`.
        seed: seed of the batch's augmentation; None leaves the images as they are.
    """

    indices: Tensor
    seed: int | None


class Images(Protocol):
    """Labelled images of one size: `ImageSet` has them in memory, `ImageFiles` on disk."""

    @property
    def labels(self) -> Tensor:
        """Class indices, int64, shape `(N,)`."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        ...

    def __len__(self) -> int:
        """The number of images N."""
        ...

    def subset(self, indices: Tensor) -> Images:
        """The images at `indices` (int64, shape `(n,)`), in that order."""
        ...

    def in_memory(self) -> ImageSet:
        """All of these images, decoded."""
        ...

    def read(self, draws: Iterable[Draw]) -> Iterator[Tensor]:
        """The pixels of one batch after the other, uint8, shape `(B, C, H, W)`.

        Nothing is read before the first batch is asked for.
        """
        ...
