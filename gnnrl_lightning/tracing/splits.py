"""Sizes of parts into which a module's code cuts channels: `torch.split(x, self.splits, 1)`.

They may be a list that the module holds; then each part is pruned on its own, and the pruned module holds a list of the
new sizes. One size of all parts may be an attribute as well, or follow from one that is the number of all channels,
`x.split(self.channels // 2, 1)`. Which attribute it is, a copy of the module with another value shows, see
`tracing.held`. Other parts are of sizes that the code fixes or that follow from the tensor: equal parts keep equal
counts.
"""

from __future__ import annotations

import torch

from gnnrl_lightning.tracing.following import Following
from gnnrl_lightning.tracing.held import Module
from gnnrl_lightning.tracing.records import ModuleSize, SplitCall


def decide_splits(held: Following) -> None:
    """Find attributes that are sizes of parts, record them, and part the channels.

    Args:
        held: What the modules hold; labels and sizes of its walk are completed.
    """
    walk = held.walk
    for call in held.splits:
        module = held.modules.get(call.module)
        sizes = [] if module is None else _sizes_of_each(module, call) or _sizes_of_all(module, call)
        walk.sizes += sizes
        if any(size.place is not None for size in sizes):
            walk.labels.cut(call.parts, call.operator, call.source)
        else:
            walk.labels.part(call.parts, call.operator, call.source)


def _sizes_of_each(module: Module, call: SplitCall) -> list[ModuleSize]:
    """Return the sizes in lists that the module holds, one for each part."""
    other = tuple(size + 1 for size in call.sizes)
    return [
        ModuleSize(call.module, name, place, labels)
        for name in module.sequences(call.sizes)
        if _given(module, call, {name: type(getattr(module.module, name))(other)}) == other
        for place, labels in enumerate(call.parts)
    ]


def _sizes_of_all(module: Module, call: SplitCall) -> list[ModuleSize]:
    """Return the attribute that is the size of all parts, or of all of them together."""
    if len(call.sizes) != 1:
        return []
    size, whole = call.sizes[0], torch.cat(call.parts)
    for name, value in module.integers().items():
        if value in (size, len(whole)) and _given(module, call, {name: 2 * value}) == (2 * size,):
            return [ModuleSize(call.module, name, None, call.parts[0] if value == size else whole)]
    return []


def _given(module: Module, call: SplitCall, values: dict[str, object]) -> tuple[int, ...] | None:
    return module.sizes([call], values, {}).sizes.get((call.operator, call.number))
