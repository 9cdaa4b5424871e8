"""Small random convolutional networks: the population on which a critic and a policy learn what structure tells.

A `Recipe` is plain data, so that a record of evaluations names its network and anybody can build and trace it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl_lightning.networks.layers import conv_norm, initialize
from gnnrl_lightning.seeds import generator_for

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "hardswish": nn.Hardswish}


@dataclass(frozen=True)
class Stage:
    """Blocks of one kind at one resolution.

    Attributes:
        block: Kind of the blocks, a key of `BLOCKS`.
        width: Channels that a block puts out.
        blocks: Number of blocks.
        stride: Stride of the first one.
        inner: Width of the layers inside a block relative to `width`.
        groups: Groups of the grouped convolutions.
    """

    block: str
    width: int
    blocks: int
    stride: int
    inner: float = 1.0
    groups: int = 1


@dataclass(frozen=True)
class Recipe:
    """A random network.

    Attributes:
        stem: Channels of the first convolution.
        stages: The stages.
        hidden: Width of a hidden layer of the classifier; 0: none.
        activation: Key of `ACTIVATIONS`.
        channels: Channels of the images.
        size: Height and width of the images, pixels.
        classes: Outputs.
    """

    stem: int
    stages: tuple[Stage, ...]
    hidden: int
    activation: str
    channels: int
    size: int
    classes: int = 10

    @property
    def families(self) -> set[str]:
        """The kinds of its blocks."""
        return {stage.block for stage in self.stages}

    def as_record(self) -> dict[str, Any]:
        """The recipe in plain JSON types."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Recipe:
        """Read what `as_record` wrote."""
        return cls(**{**record, "stages": tuple(Stage(**stage) for stage in record["stages"])})


class Residual(nn.Module):
    """Layers beside an identity, or beside a projection if the shape changes."""

    def __init__(self, layers: list[nn.Module], before: int, after: int, stride: int, last: nn.Module | None) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        changes = stride > 1 or before != after
        self.shortcut = nn.Sequential(*conv_norm(before, after, 1, stride)) if changes else nn.Identity()
        self.last = last or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        return self.last(self.layers(x) + self.shortcut(x))


class Concatenated(nn.Module):
    """Branches whose outputs are concatenated; with `dense`, the input is one of them.

    Args:
        first: Layers before the branches.
        branches: The branches.
        dense: Whether the input is concatenated, too.
    """

    def __init__(self, first: list[nn.Module], branches: list[list[nn.Module]], dense: bool = False) -> None:
        super().__init__()
        self.first = nn.Sequential(*first)
        self.branches = nn.ModuleList(nn.Sequential(*layers) for layers in branches)
        self.dense = dense

    def forward(self, x: Tensor) -> Tensor:
        """The concatenation."""
        y = self.first(x)
        return torch.cat(([x] if self.dense else []) + [branch(y) for branch in self.branches], 1)


def _plain(before: int, stage: Stage, stride: int, make: Callable[[], nn.Module]) -> tuple[nn.Module, int]:
    return nn.Sequential(*conv_norm(before, stage.width, 3, stride, activation=make())), stage.width


def _basic(before: int, stage: Stage, stride: int, make: Callable[[], nn.Module]) -> tuple[nn.Module, int]:
    inner = max(4, int(stage.width * stage.inner))
    layers = conv_norm(before, inner, 3, stride, activation=make()) + conv_norm(inner, stage.width, 3)
    return Residual(layers, before, stage.width, stride, make()), stage.width


def _bottleneck(before: int, stage: Stage, stride: int, make: Callable[[], nn.Module]) -> tuple[nn.Module, int]:
    inner = max(stage.groups, int(stage.width * stage.inner) // stage.groups * stage.groups)
    layers = conv_norm(before, inner, 1, activation=make())
    layers += conv_norm(inner, inner, 3, stride, groups=stage.groups, activation=make())
    layers += conv_norm(inner, stage.width, 1)
    return Residual(layers, before, stage.width, stride, make()), stage.width


def _inverted(before: int, stage: Stage, stride: int, make: Callable[[], nn.Module]) -> tuple[nn.Module, int]:
    inner = max(4, int(before * stage.inner))
    layers = conv_norm(before, inner, 1, activation=make())
    layers += conv_norm(inner, inner, 3, stride, groups=inner, activation=make()) + conv_norm(inner, stage.width, 1)
    if stride > 1 or before != stage.width:
        return nn.Sequential(*layers), stage.width
    return Residual(layers, before, stage.width, stride, None), stage.width


def _separable(before: int, stage: Stage, stride: int, make: Callable[[], nn.Module]) -> tuple[nn.Module, int]:
    layers = conv_norm(before, before, 3, stride, groups=before, activation=make())
    return nn.Sequential(*layers, *conv_norm(before, stage.width, 1, activation=make())), stage.width


def _dense(before: int, stage: Stage, stride: int, make: Callable[[], nn.Module]) -> tuple[nn.Module, int]:
    if stride > 1:  # a transition, whose width is the stage's
        layers = [*conv_norm(before, stage.width, 1, activation=make()), nn.AvgPool2d(2, ceil_mode=True)]
        return nn.Sequential(*layers), stage.width
    growth = max(4, int(stage.width * stage.inner / 2))
    block = Concatenated([], [conv_norm(before, growth, 3, activation=make())], dense=True)
    return block, before + growth


def _fire(before: int, stage: Stage, stride: int, make: Callable[[], nn.Module]) -> tuple[nn.Module, int]:
    squeeze, half = max(4, int(stage.width * stage.inner / 2)), max(4, stage.width // 2)
    first = conv_norm(before, squeeze, 1, stride, activation=make())
    branches = [conv_norm(squeeze, half, kernel, activation=make()) for kernel in (1, 3)]
    return Concatenated(first, branches), 2 * half


Block = Callable[[int, Stage, int, Callable[[], nn.Module]], tuple[nn.Module, int]]
"""`(input channels, stage, stride, activation) -> module, output channels`."""

BLOCKS: dict[str, Block] = {
    "plain": _plain,
    "basic": _basic,
    "bottleneck": _bottleneck,
    "inverted": _inverted,
    "separable": _separable,
    "dense": _dense,
    "fire": _fire,
}


class RandomNetwork(nn.Module):
    """The network of a recipe: `(N, channels, size, size)` to `(N, classes)`.

    Args:
        recipe: Its structure.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        make = ACTIVATIONS[recipe.activation]
        layers, width = conv_norm(recipe.channels, recipe.stem, 3, activation=make()), recipe.stem
        for stage in recipe.stages:
            for number in range(stage.blocks):
                block, width = BLOCKS[stage.block](width, stage, stage.stride if number == 0 else 1, make)
                layers.append(block)
        self.features = nn.Sequential(*layers)
        hidden = [nn.Linear(width, recipe.hidden), nn.ReLU()] if recipe.hidden else []
        self.classifier = nn.Sequential(*hidden, nn.Linear(recipe.hidden or width, recipe.classes))
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.classifier(self.features(x).mean((2, 3)))


MIXED = 0.25
"""Share of the networks whose stages have blocks of different kinds."""

DEEP = 0.3
"""Share of the networks that are deep."""


def random_recipe(number: int, attempt: int, channels: int, size: int) -> Recipe:
    """The recipe of a number, always the same.

    Args:
        number: Number of the network; networks of consecutive numbers take the kinds of blocks in turn.
        attempt: Another one of the same kind of blocks.
        channels: Channels of the images.
        size: Height and width of the images.
    """
    generator = generator_for(0, number, attempt)

    def pick(options: list[Any]) -> Any:
        return options[int(torch.randint(len(options), (), generator=generator))]

    def chance(share: float) -> bool:
        return float(torch.rand((), generator=generator)) < share

    kinds = list(BLOCKS)
    kind, mixed, deep = kinds[number % len(kinds)], chance(MIXED), chance(DEEP)
    width = pick([8, 12, 16] if deep else [12, 16, 20, 24, 32])
    stages = []
    for place in range(pick([3] if deep else [2, 3, 3, 4])):
        block = pick(kinds) if mixed else kind
        groups = pick([1, 2, 4]) if block == "bottleneck" else 1
        inner = pick([2.0, 3.0, 4.0]) if block == "inverted" else pick([0.5, 1.0, 1.0, 1.5])
        if block == "bottleneck":
            inner = pick([0.25, 0.5, 1.0])
        blocks = pick([3, 4, 5]) if deep else pick([1, 2, 3])
        stages.append(Stage(block, width, blocks, 1 if place == 0 else pick([2, 2, 2, 1]), inner, groups))
        width = int(width * pick([1.0, 1.5, 2.0])) // 4 * 4
    hidden = pick([0, 0, 0, 32, 64])
    return Recipe(
        pick([8, 12, 16, 24]), tuple(stages), hidden, pick(["relu", "relu", "silu", "hardswish"]), channels, size
    )
