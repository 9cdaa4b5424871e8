"""Grouped convolutions: all blocks of channels keep equal counts, or blocks go as a whole.

Blocks go as a whole where all channels of each are one already, at the input or at the output: those of a head of
attention, or of a group of a group norm; and where the weight is computed, as by a weight norm. The convolution then
has as many groups fewer, which its module holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gnnrl_lightning.tracing.labels import FIXED
from gnnrl_lightning.tracing.records import Blocks, Contraction, ModuleSize
from gnnrl_lightning.tracing.rows import holds_groups
from gnnrl_lightning.tracing.walk import Walk


def settle_blocks(walk: Walk) -> None:
    """Join the channels of blocks that go as a whole, and tie the counts of all others.

    Args:
        walk: The finished walk, after heads are decided; its labels, sizes and contractions are completed.
    """
    left = walk.blocks
    while left:
        channel = walk.labels.solve()
        whole = [
            item
            for item in left
            if holds_groups(walk, item.module, len(item.inputs))
            and (item.weight is None or any(_are_whole(labels, channel) for labels in (item.inputs, item.outputs)))
        ]
        if not whole:
            break
        for item in whole:
            _take_whole(walk, item)
        left = [item for item in left if not any(item is other for other in whole)]
    for item in left:
        walk.labels.tie(item.inputs, item.operator, item.source, ordered=False)
        walk.labels.tie(item.outputs, item.operator, item.source, ordered=False)


def _are_whole(labels: Tensor, channel: np.ndarray) -> bool:
    """Whether all channels of each block are one, as where it has one, and the blocks are several."""
    if bool((labels < 0).any()):
        return False
    rows = channel[labels.numpy()]
    return bool((rows == rows[:, :1]).all()) and len(np.unique(rows)) > 1


def _take_whole(walk: Walk, item: Blocks) -> None:
    both = torch.cat([item.inputs, item.outputs], 1)
    walk.labels.join(both[:, :1], both[:, 1:], item.operator, item.source)
    walk.sizes.append(ModuleSize(item.module, ("groups",), item.outputs.flatten(), item.outputs.shape[1]))
    if hasattr(walk.network.get_submodule(item.module), "in_channels"):  # PyTorch's own check their inputs' channels
        walk.sizes.append(ModuleSize(item.module, ("in_channels",), item.inputs.flatten()))
    walk.contractions = _of_whole(walk.contractions, item)
    walk.training = _of_whole(walk.training, item)


def _of_whole(contractions: Sequence[Contraction], item: Blocks) -> list[Contraction]:
    """Return contractions of which those of a grouped convolution read all inputs of each block that stays."""
    inputs = torch.full(item.inputs.shape[1:], FIXED)
    return [
        replace(each, sizes=(inputs, item.outputs.flatten()), reads=None)
        if each.weight == item.weight is not None and each.groups == len(item.inputs)
        else each
        for each in contractions
    ]
