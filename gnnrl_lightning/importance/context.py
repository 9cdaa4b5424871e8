"""The input of an importance criterion: the network, its groups, and the calibration examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from gnnrl_lightning.calibration.moments import Moments, collect_moments
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.objective import Classification, Objective
from gnnrl_lightning.surgery.layers import Layer, find_layers
from gnnrl_lightning.surgery.traced import TracedNetwork
from gnnrl_lightning.trees import Tree, split

MOMENTS_BATCH = 256
"""Calibration examples in a batch where moments are collected."""


@dataclass(frozen=True)
class Calibration:
    """Examples for an importance that needs some.

    Attributes:
        inputs: Normalised inputs on the network's device, see `gnnrl_lightning.trees.call`.
        targets: Their targets; None: an importance that needs some draws them from the network's own predictions.
        objective: Gives the loss.
    """

    inputs: Tree
    targets: Tree | None = None
    objective: Objective = field(default_factory=Classification)

    @classmethod
    def of(cls, given: Any) -> Calibration | None:
        """The calibration that a user gave.

        Args:
            given: Inputs; a pair of a tensor of inputs and their targets; a calibration, as it is; None for none.
        """
        if given is None or isinstance(given, cls):
            return given
        pair = isinstance(given, tuple) and len(given) == 2
        inputs, targets = given if pair else (given, None)
        return cls(inputs, targets)


def needed(calibration: Calibration | None) -> Calibration:
    """The calibration.

    Raises:
        UserError: There is none.
    """
    if calibration is None:
        raise UserError("this importance needs examples: give calibration=inputs, or calibration=(inputs, targets)")
    return calibration


@dataclass
class ImportanceContext:
    """A network whose channels are scored, with the data that criteria need.

    Channels are numbered by group, then index set, then rank.

    Attributes:
        graph: The traced network.
        network: The network itself.
        calibration: Examples; None if there are none.
        known_moments: Moments that were collected before; None: they are collected when they are needed.
    """

    graph: TracedNetwork
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
    def inputs(self) -> Tree:
        """The calibration inputs.

        Raises:
            UserError: There are none.
        """
        return needed(self.calibration).inputs

    @cached_property
    def moments(self) -> Mapping[str, Moments]:
        """Moments of what each layer reads."""
        if self.known_moments is not None:
            return self.known_moments
        return collect_moments(self.network, self.layers, split(self.inputs, MOMENTS_BATCH))

    def split(self, total: Tensor) -> list[Tensor]:
        """Split values of all channels `(channels,)` into `(sets, width)` for each group."""
        parts = total.split(self.sizes)
        shapes = zip(self.graph.sets.tolist(), self.graph.widths.tolist(), strict=True)
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

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
