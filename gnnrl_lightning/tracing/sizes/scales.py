"""Numbers of the code that depend on a width: `scores * q.shape[1] ** -0.5`, `F.normalize(x) * x.shape[1] ** 0.5`.

Code scales channels, sums over them and products of two feature maps by the number of channels; in the pruned network,
that is the number that is kept. Nothing is assumed: the module runs alone with longer inputs, or with wider layers (see
`tracing.sizes.held`), and with the attributes that are their sizes, and the number must then be another one.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from gnnrl_lightning.tracing.groups import Channels
from gnnrl_lightning.tracing.numbers import number_at
from gnnrl_lightning.tracing.records import Scaling, Statistic
from gnnrl_lightning.tracing.sizes.following import Following
from gnnrl_lightning.tracing.sizes.grown import free
from gnnrl_lightning.tracing.sizes.resize import Resize
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
    changed = False
    for item in walk.scalings:
        key = (item.module, item.operator, item.number)
        groups = {*np.unique(channels.place[free(item.labels), 0]).tolist()}
        if key in walk.tied or groups.isdisjoint(failing):
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
    """Return the power of the number of channels in a number of the code; 0: it has none."""
    module = following.module(item.module)
    if module is None:
        return 0.0
    width, key = channels.groups[group].width, (item.operator, item.number)
    layers = layers_of(following.walk, item.module, channels).get(group, [])
    own = free(item.labels)
    mine = own[channels.place[own, 0] == group]
    size = len(item.labels.unique())  # a view may have made several positions of a channel
    longer = {size: size + len(np.unique(mine)) // width}
    ways = [one_more(layers, width)] if layers else []
    value = module.sizes((), {}, {}).factors.get(key, item.value)
    held = {
        size.keys: number_at(module.module, size.keys) // width * (width + 1)
        for size in following.walk.sizes
        if size.module == item.module and (channels.place[free(size.labels), 0] == group).all()
    }
    for resize in (*ways, *module.choices(Resize(longer))):
        ratio = module.sizes((), held, {}, resize).factors.get(key, value)
        ratio = ratio / value if ratio and value else 1.0
        if ratio > 0 and ratio != 1:
            power = _root(math.log(ratio) / math.log(1 + len(mine) / width / item.labels.numel()))
            return power if item.operator == "mul" else -power
    return 0.0


def _root(power: float) -> float:
    """The root that a power is, up to the rounding of a number in float32; 0: it is none."""
    root = round(12 * power) / 12
    return root if abs(root - power) < 1e-4 else 0.0
