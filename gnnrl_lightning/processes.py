"""What the processes of a job tell each other; in a single process nothing is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

import torch.distributed as dist
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import nn

Value = TypeVar("Value")


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Number of processes that have joined."""
    return dist.get_world_size() if _joined() else 1


def rank() -> int:
    """Number of this process; before they have joined, what its environment says."""
    return dist.get_rank() if _joined() else getattr(rank_zero_only, "rank", None) or 0


def from_first(value: Value) -> Value:
    """The first process's value, in all of them; those of the others do not count."""
    if world_size() == 1:
        return value
    sent: list[Any] = [value if rank() == 0 else None]
    dist.broadcast_object_list(sent)
    return sent[0]


def of_all(value: Value) -> list[Value]:
    """Everybody's values in the order of the processes, in all of them."""
    if world_size() == 1:
        return [value]
    found: list[Value | None] = [None] * world_size()
    dist.all_gather_object(found, value)
    return cast("list[Value]", found)


def share(items: Sequence[Value]) -> Sequence[Value]:
    """This process's share of some work, in one piece: the shares of all, one after another, are the whole."""
    if world_size() == 1:
        return items
    first, last = (len(items) * number // world_size() for number in (rank(), rank() + 1))
    return items[first:last]


def share_weights(module: nn.Module) -> None:
    """Let all processes have the first one's weights and buffers: those of batch norms differ after a training."""
    if world_size() > 1:
        # By way of the CPU: each process has a device of its own.
        module.load_state_dict(from_first({name: tensor.cpu() for name, tensor in module.state_dict().items()}))
