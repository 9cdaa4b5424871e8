"""Sizes that code takes from one tensor and gives to another: `self.reduce(x).reshape(*x.shape[:2], -1)`.

Such code runs only while both tensors have the same number of channels, so these channels are tied: each tensor keeps
its own, as many as the other. So it is for the parts of a tensor, `torch.split(self.gates(x), [x.shape[1], 3], 1)`.
Nothing is assumed: the module runs alone with longer inputs, or with layers that make longer outputs (see
`tracing.sizes.held`), and the call must then be given the longer size although its own tensor has the old one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from gnnrl_lightning.tracing.groups import Channels
from gnnrl_lightning.tracing.records import SizedCall, SplitCall
from gnnrl_lightning.tracing.sizes.compared import note_compared
from gnnrl_lightning.tracing.sizes.following import Following
from gnnrl_lightning.tracing.sizes.grown import free, shrinking_of
from gnnrl_lightning.tracing.sizes.held import Module
from gnnrl_lightning.tracing.sizes.resize import Resize
from gnnrl_lightning.tracing.sizes.scales import note_scales
from gnnrl_lightning.tracing.sizes.splits import grown_by
from gnnrl_lightning.tracing.sizes.wider import layers_of, one_more
from gnnrl_lightning.tracing.walk import Walk


def tie_sizes(walk: Walk, channels: Channels, failing: Collection[str]) -> bool:
    """Tie channels of failing groups to those of which the code gives their calls the size; each is tried once.

    Numbers by which it scales products of feature maps may depend on their widths, see `note_scales`, and numbers with
    which it compares these, see `note_compared`.

    Args:
        walk: The walk.
        channels: Its groups.
        failing: Names of groups that fail a test of the pruned network.

    Returns:
        Whether anything has changed: then the groups are to be formed again.
    """
    mine = [number for number, group in enumerate(channels.groups) if group.name in failing]
    following, changed = Following(walk), False
    for call in (*following.calls, *(call for call in walk.splits if call.rows == 1)):
        key = call.module, call.operator, call.number
        labels = torch.cat(call.parts) if isinstance(call, SplitCall) else call.labels
        if key in walk.tied or not np.isin(channels.place[free(labels), 0], mine).any():
            continue
        walk.tied.add(key)
        if isinstance(call, SplitCall):
            found = _parts_as_read(following, call, channels)
        else:
            found = _call_as_read(following, call, channels)
        for reads, along in found:
            for one, other in _runs(reads, along, channels):
                walk.labels.tie(torch.stack([one, other]), call.operator, call.source)
                changed = True
    return changed or note_scales(following, channels, mine) or note_compared(following, channels, mine)


Pairs = Iterator[tuple[Tensor, Tensor]]
"""Labels that a module reads, and as many labels of a call of it."""


def _call_as_read(following: Following, call: SizedCall, channels: Channels) -> Pairs:
    """Yield what a module reads, and the labels of a call that is given its size."""
    found, module = shrinking_of(call, channels.numbers), following.module(call.module)
    if found is None or found[2] != 1 or call.sizes[found[0]] == -1 or module is None:
        return
    dim, along, _ = found
    count = len(along)
    for reads in _read_first(following.walk, call.module, along, channels, count):
        if any(_grows(module, call, dim, count, resize) for resize in module.choices(Resize({count: count + 1}))):
            yield reads, along
    own = set(np.unique(channels.place[free(along), 0]).tolist())
    for group, layers in layers_of(following.walk, call.module, channels).items():
        width = channels.groups[group].width
        made = next((labels for _, _, labels in layers if len(labels) == count), None)
        if group not in own and made is not None and count % width == 0:
            if _grows(module, call, dim, width, one_more(layers, width)):
                yield made, along


def _grows(module: Module, call: SizedCall, dim: int, width: int, resize: Resize) -> bool:
    """Whether a call is given one channel more for each `width` of them along a dimension, in a resized module."""
    key, longer = (call.operator, call.number), call.sizes[dim] // width * (width + 1)
    answer = tuple(longer if d == dim else size for d, size in enumerate(call.shape))
    return module.sizes([call], {}, {key: answer}, resize).sizes.get(key, call.sizes)[dim] == longer


def _parts_as_read(following: Following, call: SplitCall, channels: Channels) -> Pairs:
    """Yield what a module reads, and the parts of a call that are as long, and longer when the inputs are."""
    module = following.module(call.module)
    if module is None:
        return
    for count in dict.fromkeys(len(part) for part in call.parts if len(part) > 1):
        parts = [part for part in call.parts if len(part) == count]
        for resize in module.choices(Resize({count: count + 1})):
            if tied := _longer(module, call, parts, 1, resize):
                for reads in _read_first(following.walk, call.module, torch.cat(tied), channels, count):
                    yield from ((reads, part) for part in tied)
                break
        own = set(np.unique(channels.place[free(torch.cat(parts)), 0]).tolist())
        for group, layers in layers_of(following.walk, call.module, channels).items():
            width = channels.groups[group].width
            made = next((labels for _, _, labels in layers if len(labels) == count), None)
            if group not in own and made is not None and count % width == 0:
                tied = _longer(module, call, parts, count // width, one_more(layers, width))
                yield from ((made, part) for part in tied)


def _longer(module: Module, call: SplitCall, parts: Sequence[Tensor], more: int, resize: Resize) -> list[Tensor]:
    """Return those of the parts which a resized module gives so many channels more."""
    given = module.sizes([call], {}, {}, resize).sizes.get((call.operator, call.number), call.sizes)
    grown = grown_by(call, given) if len(given) == len(call.sizes) else []
    grown = grown * len(call.parts) if len(call.sizes) == 1 else grown  # one size for all parts
    longer = [part for part, now in zip(call.parts, grown, strict=False) if now == more]
    return [part for part in longer if any(part is each for each in parts)]


def _read_first(walk: Walk, module: str, along: Tensor, channels: Channels, count: int) -> Iterator[Tensor]:
    """Yield the labels of so many channels, others than those along a call, that the module's first layer reads."""
    own = set(channels.numbers[free(along)].tolist())
    for item in walk.contractions:
        inside = item.weight is not None and (not module or item.weight.startswith(f"{module}."))
        if inside and item.reads is not None and item.reads.numel() == count:
            reads = item.reads.flatten()
            if bool((reads >= 0).all()) and own.isdisjoint(channels.numbers[reads.numpy()].tolist()):
                yield reads
                return


def _runs(reads: Tensor, along: Tensor, channels: Channels) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the labels of both sides in parts, each of which lies in one index set of what is read."""
    places = channels.place[reads.numpy()][:, :2]
    ends = np.flatnonzero((places[1:] != places[:-1]).any(1)) + 1
    for start, stop in zip([0, *ends], [*ends, len(reads)], strict=True):
        yield reads[start:stop], along[start:stop]
