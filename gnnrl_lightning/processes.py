"""Collective operations across processes; no-ops in a single process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

import torch.distributed as dist
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import nn

from gnnrl_lightning.module_state import load_state_tensors, state_tensors

Value = TypeVar("Value")


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Number of processes in the process group; 1 without a group."""
    return dist.get_world_size() if _joined() else 1


def rank() -> int:
    """Rank of this process; before the process group exists, the rank given by the environment."""
    return dist.get_rank() if _joined() else getattr(rank_zero_only, "rank", None) or 0


def log_weight(examples: int) -> Any:
    """Return the `batch_size` for `LightningModule.log` of a mean over so many examples.

    Lightning averages these numbers over the processes, and rounds the average of whole ones down.
    """
    return float(examples)


def from_first(value: Value) -> Value:
    """Broadcast the value of rank 0 to all processes; the values of the other processes are ignored."""
    if world_size() == 1:
        return value
    sent: list[Any] = [value if rank() == 0 else None]
    dist.broadcast_object_list(sent)
    return sent[0]


def of_all(value: Value) -> list[Value]:
    """Gather every process's value, in rank order, on all processes."""
    if world_size() == 1:
        return [value]
    found: list[Value | None] = [None] * world_size()
    dist.all_gather_object(found, value)
    return cast("list[Value]", found)


def share(items: Sequence[Value]) -> Sequence[Value]:
    """Return this process's contiguous share of `items`; the shares in rank order concatenate to `items`."""
    if world_size() == 1:
        return items
    first, last = (len(items) * number // world_size() for number in (rank(), rank() + 1))
    return items[first:last]


def share_weights(module: nn.Module) -> None:
    """Broadcast the weights and buffers of rank 0; batch-norm buffers differ between processes after training."""
    if world_size() > 1:
        # Through the CPU: each process has its own device.
        load_state_tensors(module, from_first({name: tensor.cpu() for name, tensor in state_tensors(module).items()}))
