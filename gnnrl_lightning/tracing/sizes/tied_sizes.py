"""Sizes that code takes from one tensor and gives to another: `self.reduce(x).reshape(*x.shape[:2], -1)`.

Such code runs only while both tensors have the same number of channels, so these channels are tied: each tensor keeps
its own, as many as the other. Nothing is assumed: the module runs alone with longer inputs (see `tracing.held`), and
the call must then be given the longer size although its own tensor has the old one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from gnnrl_lightning.tracing.groups import Channels
from gnnrl_lightning.tracing.program.export import Inputs
from gnnrl_lightning.tracing.records import SizedCall
from gnnrl_lightning.tracing.sizes.following import Following, free, shrinking_of
from gnnrl_lightning.tracing.sizes.resize import Resize
from gnnrl_lightning.tracing.walk import Walk


def tie_sizes(walk: Walk, network: nn.Module, inputs: Inputs, channels: Channels, failing: Collection[str]) -> bool:
    """Tie channels of failing groups to those of which the code gives their calls the size; each is tried once.

    Args:
        walk: The walk.
        network: Its network.
        inputs: The inputs with which it was traced.
        channels: Its groups.
        failing: Names of groups that fail a test of the pruned network.

    Returns:
        Whether anything has changed: then the groups are to be formed again.
    """
    mine = [number for number, group in enumerate(channels.groups) if group.name in failing]
    following, changed = Following(walk, network, inputs), False
    for call in following.calls:
        key = call.module, call.operator, call.number
        if key in walk.tied or not np.isin(channels.place[free(call.labels), 0], mine).any():
            continue
        walk.tied.add(key)
        found = shrinking_of(call, channels.numbers)
        if found is None or found[2] != 1 or call.sizes[found[0]] == -1:
            continue
        dim, along, _ = found
        reads = _read_first(walk, call.module, along, channels)
        if reads is not None and _follows_inputs(following, call, dim, len(along)):
            for one, other in _runs(reads, along, channels):
                walk.labels.tie(torch.stack([one, other]), call.operator, call.source)
                changed = True
    return changed


def _read_first(walk: Walk, module: str, along: Tensor, channels: Channels) -> Tensor | None:
    """Return the labels of as many other channels as lie along a call, which the first layer of its module reads."""
    own = set(channels.numbers[free(along)].tolist())
    for item in walk.contractions:
        inside = item.weight is not None and (not module or item.weight.startswith(f"{module}."))
        if inside and item.reads is not None and item.reads.numel() == len(along):
            reads = item.reads.flatten()
            if bool((reads >= 0).all()) and own.isdisjoint(channels.numbers[reads.numpy()].tolist()):
                return reads
    return None


def _follows_inputs(following: Following, call: SizedCall, dim: int, count: int) -> bool:
    """Whether a call is given a larger size when the channels of its module's inputs are more."""
    module = following.modules.get(call.module)
    if module is None:
        return False
    longer = call.sizes[dim] // count * (count + 1)
    key = call.operator, call.number
    answers = {key: tuple(longer if d == dim else size for d, size in enumerate(call.shape))}
    resized = module.choices(Resize({count: count + 1}))
    given = (module.sizes([call], {}, answers, resize).sizes.get(key, call.sizes) for resize in resized)
    return any(sizes[dim] == longer for sizes in given)


def _runs(reads: Tensor, along: Tensor, channels: Channels) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the labels of both sides in parts, each of which lies in one index set of what is read."""
    places = channels.place[reads.numpy()][:, :2]
    ends = np.flatnonzero((places[1:] != places[:-1]).any(1)) + 1
    for start, stop in zip([0, *ends], [*ends, len(reads)], strict=True):
        yield reads[start:stop], along[start:stop]
