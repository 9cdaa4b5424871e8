"""What a walk records about the network's modules and operators, besides its parameters, for surgery."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

READERS = ("linear", *(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)))
"""Operators that multiply channels by a weight, which may be computed from parameters."""


@dataclass(frozen=True)
class ModuleSize:
    """A number of channels that a module of PyTorch holds as an attribute: `LayerNorm.normalized_shape[0]`.

    Attributes:
        module: Path of the module.
        attribute: Its attribute, an integer or a tuple of integers.
        place: Index in the tuple, or None.
        labels: Labels `(n,)` of the channels that it counts.
        unit: Number of channels that count as one: the channels of one group of a `GroupNorm` for its `num_groups`.
    """

    module: str
    attribute: str
    place: int | None
    labels: Tensor
    unit: int = 1


@dataclass(frozen=True)
class Statistic:
    """An operator that reads channels, and has no weight of its own to mask: a mean, a layer norm.

    Attributes:
        module: Path of the module that calls it.
        operator: Its name.
        number: How many operators of this name the module has called before.
        dim: Dimension of its operand along which the channels lie.
        labels: Labels `(n,)` of these channels.
    """

    module: str
    operator: str
    number: int
    dim: int
    labels: Tensor
