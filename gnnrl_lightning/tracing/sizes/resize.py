"""Other sizes of the inputs of modules, and of what their layers make: with one head, or a channel of each, more.

Several dimensions of an input may have the size of its channels by chance: as many tokens as channels. Which of them
are the channels is not known there, so each is tried, and for heads none of them, too: pixels may have their sizes. A
wrong one leads to sizes that the code does not follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor


@dataclass(frozen=True)
class Resize:
    """Other sizes of the inputs of modules, and of what layers inside them make.

    Attributes:
        sizes: Size of a dimension -> other size.
        heads: Number and width of heads: one of the dimensions of tensors `(..., heads, ..., width, ...)` is longer.
        wider: Whether it is that of the channels.
        choice: Which of several dimensions that may be the channels is resized; None: all that have a size of `sizes`.
        layers: Layer inside the module -> dimension of its output, counted from the last, and other size.
    """

    sizes: Mapping[int, int]
    heads: frozenset[tuple[int, int]] = frozenset()
    wider: bool = False
    choice: int | None = 0
    layers: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def of(self, tensor: Tensor) -> Tensor:
        """Return a tensor of the other size."""
        likely = self._likely(tensor)
        if not likely:
            return tensor
        dim, size = likely[min(self.choice or 0, len(likely) - 1)]
        shape = [size if d == dim else old for d, old in enumerate(tensor.shape)]
        if self.choice is None:
            shape = [self.sizes.get(size, size) for size in tensor.shape]
        return tensor.new_empty(shape)

    def flat(self) -> Resize:
        """Return the sizes of inputs in which numbers and widths of heads are one dimension."""
        longer = {n * width: n * (width + 1) if self.wider else (n + 1) * width for n, width in self.heads}
        return Resize(longer)

    def choices(self, tensors: Sequence[Tensor]) -> list[Resize]:
        """Return the ways to resize tensors, the likeliest first."""
        likely = max((len(self._likely(tensor)) for tensor in tensors), default=0)
        ways: list[Resize] = [replace(self, choice=choice) for choice in range(max(likely, 1))]
        if self.sizes and likely > 1:
            ways.append(replace(self, choice=None))
        if self.heads and likely:
            return [*ways, Resize({}, layers=self.layers)]
        if self.heads and not self.wider:  # an input may have the heads themselves, of one channel each
            for number in sorted({number for number, _ in self.heads}):
                alone = replace(self, sizes={number: number + 1}, heads=frozenset())
                ways += alone.choices(tensors) if any(alone._likely(tensor) for tensor in tensors) else []
        return ways

    def _likely(self, tensor: Tensor) -> list[tuple[int, int]]:
        """Return the dimensions that may be resized, the likeliest first, and their other sizes.

        Channels are likely to be last; of heads, the number comes first.
        """
        shape = tensor.shape
        found = [(dim, self.sizes[shape[dim]]) for dim in reversed(range(len(shape))) if shape[dim] in self.sizes]
        for first in range(len(shape)):
            for last in reversed(range(first + 1, len(shape))):
                if (shape[first], shape[last]) in self.heads:
                    dim = last if self.wider else first
                    found.append((dim, shape[dim] + 1))
        return list(dict.fromkeys(found))
