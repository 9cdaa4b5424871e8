"""Attention: what of its heads can be pruned, decided after the walk.

Channels that lie along heads, `(head, channel)`, can go in two ways: whole heads, with their rows of queries, keys and
values and their columns of the output projection, or the same number of channels of every head. The network's code
must follow. Where it gives sizes to its calls, these may be attributes of the module, which are then set in the pruned
network (see `tracing.sizes.held`), or may follow from the tensors. The first that holds is taken:

1. Whole heads go.
2. Channels of every head go, the number of heads stays.
3. Channels of every head go together with the channels of the layer's input, in the ratio of their widths, for code
   that computes the width of a head from the input's: `view(-1, heads, x.shape[-1] // heads)`.

Otherwise the channels are frozen, and the reason names the call whose size is a constant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from gnnrl_lightning.networks.attention import is_replaced
from gnnrl_lightning.tracing.labels import FIXED, Freeze
from gnnrl_lightning.tracing.product import UNLIKE
from gnnrl_lightning.tracing.records import Heads, ModuleSize, Shared, SizedCall, Statistic
from gnnrl_lightning.tracing.sizes.following import Following, Found
from gnnrl_lightning.tracing.sizes.grown import More, free, grown_sizes, one_more_of
from gnnrl_lightning.tracing.sizes.plain import hold_plain
from gnnrl_lightning.tracing.sizes.resize import Resize
from gnnrl_lightning.tracing.sizes.shared import join_all, keep_common, settle_outside, with_all_joined
from gnnrl_lightning.tracing.sizes.splits import decide_splits
from gnnrl_lightning.tracing.walk import Walk

MASKED = "is part of an attention head, which is combined with values that cannot be pruned"
"""Why a head stays that has a mask of its own."""


def decide_heads(walk: Walk) -> None:
    """Decide which channels of heads go together, and find the sizes that modules hold as attributes.

    Args:
        walk: The finished walk; its labels, sizes and contractions are completed.
    """
    settle_outside(walk)
    held = Following(walk)
    decide_splits(held)
    if not walk.heads and not held.plain:
        held.record()
        return
    components = _components(walk, held.channel)
    whole = _with_whole_heads(walk, [heads for part in components if part.frozen is None for heads in part.heads])
    same = with_all_joined(walk, walk.shared) if walk.shared else held.channel
    for part in components:
        part.wide = [heads for heads in part.heads if len(np.unique(held.channel[heads.row])) > 1] or part.heads
        part.shared = [item for item in walk.shared if part.takes(held.channel[free(item.channels)])]
        _decide(part, held, whole, same)
    hold_plain(held)
    held.record()


@dataclass
class _Part:
    """Heads that go together.

    Attributes:
        heads: Their records.
        channels: Numbers of the channels of these heads.
        frozen: The constraint of the walk that keeps all heads, or None.
        wide: Those with several channels in each head.
        shared: What all of their heads share.
    """

    heads: list[Heads]
    channels: set[int]
    frozen: Freeze | None
    wide: list[Heads] = field(default_factory=list)
    shared: list[Shared] = field(default_factory=list)

    def takes(self, channels: np.ndarray) -> bool:
        return not self.channels.isdisjoint(channels.tolist())

    def more(self, channels: np.ndarray, numbers: np.ndarray, unit: int | None = None) -> int:
        """Return how many more channels there are if every head has one more of each width.

        Args:
            channels: The channels, with repetitions.
            numbers: Channel of each label.
            unit: Wide heads have one more for each `unit` of their width.
        """
        longer = 0.0
        for heads in self.heads:
            mine = np.isin(channels, numbers[free(heads.channels)])
            wide = any(heads is each for each in self.wide)
            longer += np.count_nonzero(mine) / (unit if wide and unit is not None else heads.channels.shape[1])
            channels = channels[~mine]
        return round(longer)

    @property
    def unit(self) -> int:
        """The largest number of which the widths of all heads are multiples."""
        return math.gcd(*(heads.channels.shape[1] for heads in self.wide))


def _components(walk: Walk, channel: np.ndarray) -> list[_Part]:
    """Return the heads that are joined, or share channels that may be pruned."""
    frozen = {int(c): freeze for freeze in reversed(walk.labels.frozen if walk.heads else ())
              for c in channel[freeze.labels.numpy()]}  # fmt: skip
    parts: list[_Part] = []
    for heads in walk.heads.values():
        own = channel[free(heads.labels)]
        mine = {*own.tolist(), *channel[free(heads.channels)].tolist()}
        free_ones = mine.difference(frozen)  # what stays joins nothing
        near = [part for part in parts if not part.channels.isdisjoint(free_ones)]
        parts = [part for part in parts if part.channels.isdisjoint(free_ones)]
        partial = Freeze(heads.labels, heads.operator, heads.source, UNLIKE) if (heads.channels < 0).any() else None
        stays = next((frozen[c] for c in own.tolist() if c in frozen), partial)
        parts.append(
            _Part(
                [*(other for part in near for other in part.heads), heads],
                mine.union(*(part.channels for part in near)),
                next((part.frozen for part in near if part.frozen is not None), stays),
            )
        )
    return parts


def _with_whole_heads(walk: Walk, heads: Sequence[Heads]) -> np.ndarray:
    """Return the channel of each label if the channels of each of these heads were one."""
    labels = replace(walk.labels, joined=list(walk.labels.joined))
    for item in heads:
        a, b = torch.broadcast_tensors(item.labels[:, None], item.channels)
        labels.joined.append((a[b >= 0], b[b >= 0]))
    return labels.solve()


def _decide(part: _Part, held: Following, whole: np.ndarray, same: np.ndarray) -> None:
    """Decide for heads that go together.

    Args:
        part: The heads.
        held: What the modules hold.
        whole: Channel of each label if whole heads go.
        same: Channel of each label if heads keep the same channels as what they share.
    """
    walk = held.walk
    replaced = {heads.module for heads in part.heads if is_replaced(walk.network.get_submodule(heads.module))}

    def of_heads(along: Tensor) -> int:
        return one_more_of(whole, along)

    def of_width(along: Tensor) -> int:
        return part.more(same[free(along)], same)

    culprit: SizedCall | None = None
    shapes = frozenset((len(heads.channels), heads.channels.shape[1]) for heads in part.wide)
    if part.frozen is None:
        calls = _calls_of(held, part.channels, held.channel, replaced)
        grown = grown_sizes(calls, whole, of_heads)
        found = held.follow(calls, grown, Resize({}, shapes), _only(of_heads, part.channels, held.channel))
        if found.culprit is None:
            _take_whole_heads(walk, part)
            keep_common(walk, part.shared)
            held.hold(found.attributes, whole)
            for heads in part.heads:
                if heads.module in replaced:
                    walk.sizes.append(ModuleSize(heads.module, ("num_heads",), heads.labels))
            return
        culprit = found.culprit
    mine = {c for heads in part.heads for labels in (heads.labels, heads.channels) for c in same[free(labels)].tolist()}
    calls, own_width = _calls_of(held, mine, same, replaced), _only(of_width, mine, same)
    join_all(walk, part.shared)
    grown = grown_sizes(calls, same, of_width)
    found = held.follow(calls, grown, Resize({}, shapes, wider=True), own_width)
    read = _inputs_of(walk, part, held.channel)
    with_input = found.culprit is not None and read is not None and not replaced
    if with_input and read is not None:
        unit, others = part.unit, {*held.channel[free(read)].tolist()}
        longer = {len(read): len(read) // unit * (unit + 1)}
        in_ratio = _only(lambda along: part.more(same[free(along)], same, unit), mine, same)

        def of_both(made: Tensor) -> int:
            if {*held.channel[free(made)].tolist()} == others and len(made) == len(read):
                return len(read) // unit
            return in_ratio(made)

        grown = grown_sizes(calls, same, in_ratio)
        found = held.follow(calls, grown, Resize(longer, shapes, wider=True), of_both)
    if found.culprit is not None or replaced:
        _freeze(walk, part, culprit or found.culprit)
        return
    _take_width(walk, part, culprit, read if with_input else None)
    _note_scalings(part, held, found, part.unit if with_input else None)
    held.hold(found.attributes, same)


def _only(more: More, channels: set[int], numbers: np.ndarray) -> More:
    """Return how many more labels there are if all are among some channels, given the channel of each label."""
    return lambda made: more(made) if channels.issuperset(numbers[free(made)].tolist()) else 0


def _calls_of(held: Following, channels: set[int], numbers: np.ndarray, replaced: set[str]) -> list[SizedCall]:
    """Return the calls that are given sizes of these channels, which are no others any more."""
    calls = [call for call in held.calls if not channels.isdisjoint(numbers[free(call.labels)].tolist())]
    held.plain = [call for call in held.plain if all(call is not other for other in calls)]
    return [call for call in calls if call.module not in replaced]


def _take_whole_heads(walk: Walk, part: _Part) -> None:
    rows = {id(heads.row) for heads in part.heads}
    for heads in part.heads:
        walk.labels.join(heads.labels[:, None], heads.channels, heads.operator, heads.source)
    walk.contractions = [
        replace(item, sizes=tuple(torch.full_like(size, FIXED) if id(size) in rows else size for size in item.sizes))
        for item in walk.contractions
    ]


def _take_width(walk: Walk, part: _Part, culprit: SizedCall | None, read: Tensor | None) -> None:
    """Let channels of every head go, together with those of the input where `read` has their labels."""
    for heads in part.wide:
        tables = [heads.channels] if read is None else [each.reshape(-1, part.unit) for each in (read, heads.channels)]
        walk.labels.tie(torch.cat(tables), heads.operator, heads.source)
    for heads in part.heads:
        _freeze_labels(walk, part, heads, heads.labels, culprit)
        walk.produced.append((_maker(walk, heads), heads.labels))


def _maker(walk: Walk, heads: Heads) -> str:
    """Return the name of the module that produces the channels of heads."""
    mine = set(heads.channels.flatten().tolist())
    return next((name for name, made in walk.produced if not mine.isdisjoint(made.tolist())), heads.module)


def _note_scalings(part: _Part, held: Following, found: Found, unit: int | None) -> None:
    """Record numbers of the code that depend on the width of a head: with one channel more they are others."""
    for item in held.walk.scalings:
        now = found.factors.get(item.module, {}).get((item.operator, item.number), item.value)
        if (
            now
            and item.value
            and now != item.value
            and now / item.value > 0
            and part.takes(held.channel[free(item.labels)])
        ):
            mine = {*item.labels.flatten().tolist()}
            heads = next((each for each in part.wide if mine & {*each.channels.flatten().tolist()}), part.wide[0])
            power = math.log(now / item.value) / math.log1p(1 / (unit or heads.channels.shape[1]))
            power = power if item.operator == "mul" else -power
            labels = heads.channels.flatten()
            held.walk.statistics.append(Statistic(item.module, item.operator, item.number, 0, labels, power=power))


def _freeze(walk: Walk, part: _Part, culprit: SizedCall | None) -> None:
    for heads in part.heads:
        for labels in (heads.labels, heads.channels):
            _freeze_labels(walk, part, heads, labels, culprit)


def _freeze_labels(walk: Walk, part: _Part, heads: Heads, labels: Tensor, culprit: SizedCall | None) -> None:
    if culprit is None and part.frozen is not None:
        why = part.frozen
        reason = MASKED if why.reason == UNLIKE else f"is part of an attention head, which {why.reason}"
        walk.labels.freeze(labels, why.operator, why.source, reason)
        return
    if culprit is None:
        walk.labels.freeze(labels, heads.operator, heads.source, "is part of an attention head that cannot be pruned")
        return
    sizes = ", ".join(map(str, culprit.sizes))
    reason = f"is part of an attention head: {culprit.operator}({sizes}) has a size that the code fixes"
    walk.labels.freeze(labels, culprit.operator, culprit.source, reason)


def _inputs_of(walk: Walk, part: _Part, channel: np.ndarray) -> Tensor | None:
    """Return the labels of the channels that all layers of these heads read, if all heads have a share of them."""
    number = len(part.wide[0].channels)
    if any(len(heads.channels) != number for heads in part.wide):
        return None
    made = np.concatenate([channel[free(heads.channels)] for heads in part.wide])
    found = [
        item.reads
        for item in walk.contractions
        if item.reads is not None and item.writes is not None and np.isin(channel[free(item.writes)], made).any()
    ]
    shapes = {tuple(reads.shape) for reads in found}
    return found[0] if len(shapes) == 1 and found[0].dim() == 1 and len(found[0]) % (number * part.unit) == 0 else None
