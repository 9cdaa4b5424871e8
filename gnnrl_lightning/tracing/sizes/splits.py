"""Sizes of parts into which a module's code cuts channels: `torch.split(x, self.splits, 1)`, `x[:, : self.side]`.

They may be integers that the module holds, on their own or in a list; then each part is pruned on its own, and the
pruned module holds the new sizes. Parts of which one such integer is the size keep equal counts. One size of all parts
may be an attribute as well, or follow from one that is the number of all channels, `x.split(self.channels // 2, 1)`.
Channels may lie in rows, such as heads, of which each is cut: the sizes are those of a row.
Which attribute it is, a copy of the module with another value shows, see `tracing.sizes.held`. Other parts are of
sizes that the code fixes, or that follow from this tensor or from another one, see `tracing.sizes.tied_sizes`: equal
parts keep equal counts, and unequal ones perhaps their ratio, see `labels.Parts`.
"""

from __future__ import annotations

import torch

from gnnrl_lightning.tracing.numbers import Keys
from gnnrl_lightning.tracing.records import ModuleSize, SplitCall
from gnnrl_lightning.tracing.sizes.following import Following
from gnnrl_lightning.tracing.sizes.held import Module


def decide_splits(held: Following) -> None:
    """Find attributes that are sizes of parts, record them, and part the channels.

    Args:
        held: What the modules hold; labels and sizes of its walk are completed.
    """
    walk = held.walk
    for call in held.splits:
        module = held.module(call.module)
        parts, sizes, separate = call.parts, list[ModuleSize](), False
        if call.operator == "slice":
            before, inside, after = call.parts
            parts = (inside, torch.cat([before, after]))
        if module is not None:
            sizes = _of_integers(module, call)
            separate = bool(sizes)
            sizes = sizes or _sizes_of_all(module, call)
        for size in sizes:
            rows = held.rows.setdefault((size.module, size.keys), [])
            rows.append((size.labels.reshape(call.rows, -1), None))
        if call.operator == "slice_scatter":
            continue  # what is written into has the channels of what is written
        if call.rows > 1:
            walk.labels.part_rows([part.reshape(call.rows, -1) for part in parts], call.operator, call.source)
        elif separate:
            walk.labels.cut(call.parts, call.operator, call.source)
        else:
            walk.labels.part(parts, call.operator, call.source)


def _of_integers(module: Module, call: SplitCall) -> list[ModuleSize]:
    """Return the integers that the module holds which are sizes of parts, or of all of them together.

    All other parts must follow from them: `[self.side, self.all - self.side]`.
    """
    found, whole = [], torch.cat(call.parts)
    if call.operator == "split" and len(call.sizes) < 2:
        return []
    lengths = {len(part) // call.rows for part in (whole, *call.parts)}
    for keys, value in module.numbers.items():
        if value not in lengths:
            continue
        grown = _grown_with(module, call, keys, value)
        found += [
            ModuleSize(call.module, keys, labels)
            for labels, more in zip(call.parts, grown, strict=False)
            if more == 1 and len(labels) == value * call.rows
        ]
        if value * call.rows == len(whole) and sorted(grown) == [*[0] * (len(grown) - 1), 1]:
            found.append(ModuleSize(call.module, keys, whole))
    return found


def _grown_with(module: Module, call: SplitCall, keys: Keys, value: int) -> list[int]:
    """Return by how many channels each part grows with a number; [] if the call is not given as many sizes.

    A slice up to one more channel may be of all of them, which is no slice: a smaller one tells as much.
    """
    for more in (1, -1):
        given = _given(module, call, {keys: value + more})
        if given is not None and len(given) == len(call.sizes):
            return [more * part for part in grown_by(call, given)]
    return []


def grown_by(call: SplitCall, given: tuple[int, ...]) -> list[int]:
    """Return by how many channels each part has grown when a call is given other sizes."""
    if call.operator == "split":
        return [now - size for now, size in zip(given, call.sizes, strict=True)]
    (start, end), (first, last) = call.sizes, given
    inside = last - first - (end - start)
    return [first - start, inside if end < sum(map(len, call.parts)) else 0, 0]


def _sizes_of_all(module: Module, call: SplitCall) -> list[ModuleSize]:
    """Return the attribute that is the size of all parts, or of all of them together."""
    if len(call.sizes) != 1:
        return []
    size, whole = call.sizes[0], torch.cat(call.parts)
    for keys, value in module.numbers.items():
        if value in (size, len(whole) // call.rows) and _given(module, call, {keys: 2 * value}) == (2 * size,):
            return [ModuleSize(call.module, keys, call.parts[0] if value == size else whole)]
    return []


def _given(module: Module, call: SplitCall, values: dict[Keys, int]) -> tuple[int, ...] | None:
    return module.sizes([call], values, {}).sizes.get((call.operator, call.number))
