"""Records of sizes that a network's code gives to its calls, or holds as attributes of its modules.

Whether such a size is a constant, an attribute that the pruned network must change, or follows from the tensors, is
found after the walk, see `tracing.sizes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.fx import Node

from gnnrl_lightning.tracing.labels import support
from gnnrl_lightning.tracing.numbers import numbers_of
from gnnrl_lightning.tracing.records import ModuleSize, SizedCall, SplitCall
from gnnrl_lightning.tracing.walk import Walk, operator_name

COPIES = ("to", "_to_copy", "type_as", "clone", "contiguous", "detach", "alias")
"""Operators between zeros that the code makes and the operator that puts them beside channels."""

RECURRENT = (nn.RNNBase, nn.RNNCellBase)
"""Modules of PyTorch that make zeros of a size which follows by type."""


def note_sizes(walk: Walk, labels: Tensor, sizes: Sequence[int], number: int) -> None:
    """Record a call whose arguments are sizes of its output, see `SizedCall`; PyTorch's modules follow by type.

    Args:
        walk: The walk.
        labels: Labels of its output.
        sizes: The sizes that the code gives; -1 for one that follows from the others.
        number: How many calls of this name the module has made before.
    """
    if support(labels) and walk.caller is not None and not isinstance(walk.caller, nn.modules.conv._ConvNd):
        call = SizedCall(walk.module, walk.operator, number, tuple(sizes), walk.shape, labels, walk.source)
        walk.calls_of_sizes.append(call)


def note_zeros(walk: Walk, labels: Tensor) -> None:
    """Record that zeros which the code makes have these channels: the current operator puts them beside channels."""
    for made in walk.node.all_input_nodes if walk.node is not None and support(labels) else ():
        while operator_name(made.target) in COPIES and isinstance(made.args[0], Node):
            made = made.args[0]
        own = isinstance(walk.caller, RECURRENT) and walk.module_of(made) == walk.module
        if made in walk.created and walk.caller is not None and not own:
            operator, number, sizes = walk.created[made]
            walk.calls_of_sizes.append(
                SizedCall(walk.module_of(made), operator, number, sizes, sizes, labels, walk.source)
            )


def note_split(
    walk: Walk, parts: Sequence[Tensor], sizes: tuple[int, ...], number: int, operator: str = "split", rows: int = 1
) -> bool:
    """Record a call that cuts channels into parts; return whether the module may hold their sizes, see `SplitCall`.

    Args:
        walk: The walk.
        parts: Labels of the parts.
        sizes: The sizes that the code gives: one for all parts, or one for each of them; of a slice, its ends.
        number: How many calls of this name the module has made before.
        operator: Name of the call.
        rows: How many rows of channels, such as heads, are each cut so.
    """
    whole = sum(part.numel() for part in parts) // rows
    near = {*sizes, whole} if len(sizes) == 1 else {*sizes} - {0, whole}
    found = bool(sizes) and walk.caller is not None and not near.isdisjoint(numbers_of(walk.caller).values())
    if walk.caller is not None and sizes:
        flat = tuple(part.flatten() for part in parts)
        walk.splits.append(SplitCall(walk.module, number, sizes, flat, walk.source, operator, found, rows))
    return found


def note_attribute(
    walk: Walk, attribute: str, value: Any, labels: Tensor, place: int | None = None, unit: int = 1
) -> None:
    """Record the attribute of the current module that is the number of these channels, see `ModuleSize`.

    Args:
        walk: The walk.
        attribute: Its name.
        value: Its dense value, as given to the current operator: an attribute with another value is another one.
        labels: Labels `(n,)` of the channels.
        place: Index of the number if `value` is a tuple.
        unit: Number of channels that count as one.
    """
    held = getattr(walk.caller, attribute, None)
    if (tuple(held) if isinstance(held, (tuple, list)) else held) == value:
        keys = (attribute,) if place is None else (attribute, place)
        walk.sizes.append(ModuleSize(walk.module, keys, labels, unit))
