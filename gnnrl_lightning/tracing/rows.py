"""Records of channels that lie in rows: heads of attention, channels that all rows meet, blocks of convolutions.

Rows may go as a whole, or the same number of channels of every row may go. Which of the two it is depends on the
network's code, so it is decided after the walk, see `tracing.sizes`.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from torch import Tensor

from gnnrl_lightning.tracing.labels import support
from gnnrl_lightning.tracing.records import Blocks, Heads, Shared
from gnnrl_lightning.tracing.walk import Walk


def heads_of(walk: Walk, labels: Tensor, dims: Collection[int]) -> tuple[Tensor, Heads]:
    """Return the labels of the heads along which channels lie, of size 1 along `dims`, and the record of them.

    Args:
        walk: The walk.
        labels: Label tensor that changes along dimensions of heads and along `dims`.
        dims: Dimensions of the channels of a head.
    """
    outer, channels = _rows(labels, dims)
    number = len(channels)
    key = channels.contiguous().numpy().tobytes(), number
    if key not in walk.heads:
        made = walk.labels.fresh(number)
        walk.heads[key] = Heads(made, channels, channels[0], walk.module, walk.operator, walk.source)
    found = walk.heads[key]
    return found.labels.reshape([labels.shape[dim] if dim in outer else 1 for dim in range(labels.dim())]), found


def share_rows(walk: Walk, labels: Tensor, dims: Collection[int], common: Tensor) -> None:
    """Record that all heads along which channels lie meet the same other channels, see `Shared`.

    Args:
        walk: The walk.
        labels: Label tensor that changes along dimensions of heads and along `dims`.
        dims: Dimensions of the channels of a head.
        common: Label tensor of the others, which broadcasts to `labels`.
    """
    others = common.expand([size if dim in dims else 1 for dim, size in enumerate(labels.shape)])
    channels, (met,) = _rows(labels, dims)[1], _rows(others, dims)[1]
    walk.shared.append(Shared(channels, met, walk.operator, walk.source))


def note_blocks(walk: Walk, weight: str | None, inputs: Tensor, outputs: Tensor) -> None:
    """Record the blocks of a grouped convolution, see `Blocks`.

    Args:
        walk: The walk.
        weight: Name of its weight; None if that is computed.
        inputs: Labels `(groups, C_in / groups)`.
        outputs: Labels `(groups, C_out / groups)`.
    """
    walk.blocks.append(Blocks(weight, inputs, outputs, walk.module, walk.operator, walk.source))


def holds_groups(walk: Walk, module: str, groups: int) -> bool:
    """Whether a module holds the number of groups of its convolution, as those of PyTorch do."""
    return getattr(walk.network.get_submodule(module), "groups", None) == groups


def _rows(labels: Tensor, dims: Collection[int]) -> tuple[list[int], Tensor]:
    """Return the dimensions of heads, and the labels `(heads, n)` of the channels that lie along `dims` in each."""
    outer = [dim for dim in support(labels) if dim not in dims]
    inner = [dim for dim in support(labels) if dim in dims]
    rest = [dim for dim in range(labels.dim()) if dim not in (*outer, *inner)]
    number = math.prod(labels.shape[dim] for dim in outer)
    return outer, labels.permute(*outer, *inner, *rest).reshape(number, -1)
