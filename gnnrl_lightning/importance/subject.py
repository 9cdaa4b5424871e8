"""The input of an importance criterion: the network, its groups, and the calibration images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from gnnrl_lightning.calibration.moments import Moments, collect_moments
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.surgery.layers import Layer, find_layers

MOMENTS_BATCH = 256
"""Calibration images in a batch where moments are collected."""

Calibration = Tensor | tuple[Tensor, Tensor]
"""Normalised images `(N, C, H, W)`, or images and labels `(N,)`."""


@dataclass
class Subject:
    """A network whose channels are scored, with the data that criteria need.

    Channels are numbered by group, then index set, then rank.

    Attributes:
        graph: The traced network.
        network: The network itself.
        calibration: Images, with labels or without; None if there are none.
        known_moments: Moments that were collected before; None: they are collected when they are needed.
    """

    graph: Any
    network: nn.Module
    calibration: Calibration | None
    known_moments: Mapping[str, Moments] | None = None

    @cached_property
    def parameters(self) -> dict[str, Tensor]:
        """Prunable parameters by name, detached."""
        found = {name: parameter.detach() for name, parameter in self.network.named_parameters()}
        return {name: parameter for name, parameter in found.items() if name in self.graph.cuts}

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """Layers of the network by weight."""
        return find_layers(self.graph)

    @cached_property
    def sizes(self) -> list[int]:
        """Number of channels of each group, over all index sets."""
        return (self.graph.widths * self.graph.sets).tolist()

    @property
    def images(self) -> Tensor:
        """The calibration images.

        Raises:
            UserError: There are none.
        """
        if self.calibration is None:
            raise UserError("this importance needs images: give calibration=images, or calibration=(images, labels)")
        return self.calibration if isinstance(self.calibration, Tensor) else self.calibration[0]

    @cached_property
    def moments(self) -> Mapping[str, Moments]:
        """Moments of what each layer reads."""
        if self.known_moments is not None:
            return self.known_moments
        return collect_moments(self.network, self.layers, self.images.split(MOMENTS_BATCH))

    def split(self, total: Tensor) -> list[Tensor]:
        """Split values of all channels `(channels,)` into `(sets, width)` for each group."""
        parts = total.split(self.sizes)
        return [part.reshape(sets, -1) for part, sets in zip(parts, self.graph.sets.tolist(), strict=True)]

    def slices(self, name: str, values: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the slices of a tensor that belong to a channel: channel numbers `(n,)`, and slices `(n, ..., 1)`.

        Args:
            name: Name of a prunable parameter.
            values: The parameter, or a tensor of the same shape.
        """
        cut = self.graph.cuts[name]
        found = [(axis, values.movedim(dim, 0)) for dim, axis in cut.axes.items()]
        blocks = values.reshape(len(cut.blocks), -1, *values.shape[1:]) if cut.blocks else ()
        found += [(axis, block.movedim(1, 0)) for axis, block in zip(cut.blocks, blocks, strict=True)]
        for axis, along in found:
            free = slice(None) if axis.fixed == 0 else (axis.channels >= 0).nonzero().flatten()
            yield axis.channels[free], along[free, ..., None]
