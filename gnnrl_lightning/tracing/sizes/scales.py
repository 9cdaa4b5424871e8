"""Numbers of the code that depend on a width: `scores * q.shape[1] ** -0.5`, as attention without heads has it.

Products of two feature maps are scaled by the number of channels that they compare; in the pruned network, that is the
number that is kept. Nothing is assumed: the module runs alone with wider layers (see `tracing.sizes.held`), and the
number must then be another one.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from gnnrl_lightning.tracing.groups import Channels
from gnnrl_lightning.tracing.records import Scaling, Statistic
from gnnrl_lightning.tracing.sizes.following import Following, free
from gnnrl_lightning.tracing.sizes.wider import layers_of, one_more


def note_scales(following: Following, channels: Channels, failing: Collection[int]) -> bool:
    """Record numbers that depend on the widths of failing groups; each is tried once.

    Args:
        following: What the modules hold; statistics of its walk are completed.
        channels: The groups.
        failing: Numbers of the groups that fail a test of the pruned network.

    Returns:
        Whether there are any: then the test may pass.
    """
    walk = following.walk
    compared = np.concatenate([channels.numbers[free(labels)] for labels in walk.compared] or [np.empty(0, np.int64)])
    changed = False
    for item in walk.scalings:
        key, labels = (item.module, item.operator, item.number), free(item.labels)
        groups = {*np.unique(channels.place[labels, 0]).tolist()}
        if key in walk.tied or groups.isdisjoint(failing) or not np.isin(channels.numbers[labels], compared).all():
            continue
        walk.tied.add(key)
        powers = (_power(following, item, channels, group) for group in sorted(groups - {-1}))
        power = next((power for power in powers if power), 0.0)
        if power:
            made = Statistic(item.module, item.operator, item.number, 0, item.labels.flatten(), power=power)
            walk.statistics.append(made)
            changed = True
    return changed


def _power(following: Following, item: Scaling, channels: Channels, group: int) -> float:
    """Return the power of the number of contracted channels in a number of the code; 0: a group does not change it."""
    layers = layers_of(following.walk, item.module, channels).get(group)
    module = following.module(item.module) if layers else None
    if not layers or module is None:
        return 0.0
    width = channels.groups[group].width
    given = module.sizes((), {}, {}, one_more(layers, width)).factors
    ratio = given.get((item.operator, item.number), item.value) / item.value if item.value else 1.0
    count, mine = item.labels.numel(), channels.place[free(item.labels), 0] == group
    more = int(mine.sum()) // width
    power = math.log(ratio) / math.log((count + more) / count) if ratio > 0 and more else 0.0
    return power if item.operator == "mul" else -power
