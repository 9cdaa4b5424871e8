"""MACs of one operator of an exported graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_aggregate
from torch.utils.flop_counter import FlopCounterMode

from gnnrl_lightning.tracing.program.export import has_sizes, sized_by_values


def macs_of(node: Node) -> int:
    """Return an operator's MACs for the whole example batch: `FlopCounterMode` on meta tensors, halved.

    Operators that pick elements by their values have none, and cannot run on meta tensors.

    Raises:
        UserError: The values of a tensor decide how many it has.
    """
    if torch.Tag.dynamic_output_shape in getattr(node.target, "tags", ()):
        return 0

    def meta(argument: Any) -> Any:
        return _meta(argument.meta["val"]) if isinstance(argument, Node) else argument

    args, kwargs = map_aggregate(node.args, meta), map_aggregate(node.kwargs, meta)
    with FlopCounterMode(display=False) as counter:
        try:
            node.target(*args, **kwargs)  # type: ignore[operator]
        except NotImplementedError:  # it has no kernel on the meta device, as all operators with MACs have
            return 0
    if counter.get_total_flops() and not all(map(has_sizes, node.all_input_nodes)):
        raise sized_by_values(node)
    return counter.get_total_flops() // 2


def _meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        # Within autocast, operands have different types; their number of MACs is the same.
        dtype = torch.float32 if value.is_floating_point() else value.dtype
        size, stride = ([_meta(number) for number in numbers] for numbers in (value.shape, value.stride()))
        return torch.empty_strided(size, stride, dtype=dtype, device="meta")  # which product runs depends on strides
    if isinstance(value, (tuple, list)):
        return type(value)(_meta(item) for item in value)
    return 1 if isinstance(value, torch.SymInt) else value  # the values of a tensor decide it
