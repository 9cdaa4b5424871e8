"""Numbers of channels with which code compares what it gets: `assert x.shape[1] == self.channels`.

Such a number follows only if the pruned module holds another one. Nothing is assumed: the module runs alone with longer
inputs, see `tracing.sizes.held`; with another value of the attribute, it must come further.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from gnnrl_lightning.tracing.groups import Channels
from gnnrl_lightning.tracing.numbers import Keys
from gnnrl_lightning.tracing.records import ModuleSize
from gnnrl_lightning.tracing.sizes.following import Following
from gnnrl_lightning.tracing.sizes.grown import free
from gnnrl_lightning.tracing.sizes.held import Module
from gnnrl_lightning.tracing.sizes.resize import Resize
from gnnrl_lightning.tracing.walk import Walk


def note_compared(following: Following, channels: Channels, failing: Sequence[int]) -> bool:
    """Record attributes that modules compare with the widths of failing groups; each is tried once.

    Args:
        following: What the modules hold; sizes of its walk are completed.
        channels: The groups.
        failing: Numbers of the groups that fail a test of the pruned network.

    Returns:
        Whether there are any: then the test may pass.
    """
    walk, changed = following.walk, False
    for path, labels in _read(walk):
        key = path, "compared", len(labels)
        if key in walk.tied or not np.isin(channels.place[free(labels), 0], failing).any():
            continue
        walk.tied.add(key)
        module = following.module(path)
        for keys in _compared(module, len(labels)) if module is not None else ():
            walk.sizes.append(ModuleSize(path, keys, labels))
            changed = True
    return changed


def _read(walk: Walk) -> Iterator[tuple[str, Tensor]]:
    """Yield the modules around layers, and the labels of the channels that these layers read."""
    for item in walk.contractions:
        if item.weight is not None and item.reads is not None:
            path = item.weight.rpartition(".")[0]
            while path:
                path = path.rpartition(".")[0]
                yield path, item.reads.flatten()


def _compared(module: Module, size: int) -> list[Keys]:
    """Return the numbers that a module holds without which it does not come as far with longer inputs."""
    found = []
    likely = [keys for keys, value in module.numbers.items() if value == size]
    for resize in module.choices(Resize({size: size + 1})) if likely else ():
        before = module.refuses({}, resize)
        if before:
            found += [keys for keys in likely if module.refuses({keys: size + 1}, resize) != before]
    return list(dict.fromkeys(found))
