"""Channels of which every head meets the same others: keys and values that all queries share, weights of norms.

Of heads of attention, either whole heads go, and the common channels stay, or the same channels of every head, together
with the common ones: `tracing.sizes.heads` decides. Outside attention, such as for the channels of a view that meet a
gate or a scale, it is the same channels of every row, unless the code gives the width of the rows and lets their number
follow: `view(n, -1, 16)`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gnnrl_lightning.tracing.records import Shared
from gnnrl_lightning.tracing.sizes.grown import free
from gnnrl_lightning.tracing.walk import Walk

STAYS = "is shared by all heads, or rows of other channels, which go as a whole"


def settle_outside(walk: Walk) -> None:
    """Let rows that are no heads keep the same channels, or go as a whole; keep what is of heads for later."""
    if not walk.shared:
        return
    channel = walk.labels.solve()
    of_heads = [channel[free(labels)] for heads in walk.heads.values() for labels in (heads.labels, heads.channels)]
    mine = np.unique(np.concatenate(of_heads)) if of_heads else np.empty(0, dtype=np.int64)
    left = []
    for item in walk.shared:
        if np.isin(channel[free(item.channels)], mine).any():
            left.append(item)
        elif _infers_rows(walk, item, channel):
            walk.labels.join(item.channels[:, :1], item.channels[:, 1:], item.operator, item.source)
            keep_common(walk, [item])
        else:
            join_all(walk, [item])
    walk.shared = left


def _infers_rows(walk: Walk, item: Shared, channel: np.ndarray) -> bool:
    """Whether a call gives the width of these rows and lets their number follow from the input."""
    mine = channel[free(item.channels)]
    given = (-1, item.channels.shape[1])
    return any(
        given in itertools.pairwise(call.sizes) and np.isin(channel[free(call.labels)], mine).any()
        for call in walk.calls_of_sizes
    )


def with_all_joined(walk: Walk, shared: Sequence[Shared]) -> np.ndarray:
    """Return the channel of each label if all heads kept the same channels, together with the common ones."""
    labels = replace(walk.labels, joined=list(walk.labels.joined), frozen=[])
    for item in shared:
        labels.join(item.channels, item.common, item.operator, item.source)
    return labels.solve()


def join_all(walk: Walk, shared: Sequence[Shared]) -> None:
    """Let all heads keep the same channels, together with the common ones."""
    for item in shared:
        walk.labels.join(item.channels, item.common, item.operator, item.source)


def keep_common(walk: Walk, shared: Sequence[Shared]) -> None:
    """Keep the common channels: whole heads go."""
    for item in shared:
        walk.labels.freeze(item.common, item.operator, item.source, STAYS)
