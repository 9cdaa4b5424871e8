"""Keep freed memory and compiled kernels for reuse; recreating them is expensive on CPUs."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

LARGEST = 32 * 2**20
"""Largest block that is allocated from the heap: 32 MiB, the upper bound of glibc."""

KEPT = 2**30
"""Maximum free heap to keep, bytes."""

KERNELS = 8192
"""Capacity of oneDNN's kernel cache; its default is 1,024."""

RESERVED = 2**28
"""Bytes of the heap that are written before a measurement, so that its first blocks cause no page faults."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4

_MMAP_MAX = 65536
"""Default of glibc."""


def keep_freed_memory() -> bool:
    """Make glibc reuse freed blocks instead of returning them to the operating system.

    By default, each block above a threshold is mapped when it is allocated and unmapped when it is freed, so every
    tensor causes page faults. With small networks these take longer than the computation: scoring states of 93 nodes
    took 481 microseconds per state before and 92 after. Peak memory is unchanged.

    Returns:
        Whether the allocator is glibc's; other allocators are left unchanged.
    """
    return _mallopt(_M_MMAP_THRESHOLD, LARGEST) and _mallopt(_M_TRIM_THRESHOLD, KEPT)


def _mallopt(option: int, value: int) -> bool:
    """Set an option of glibc's allocator; return False if the allocator is another one."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(option, value))


@contextmanager
def heap_alone() -> Iterator[None]:
    """Take blocks of all sizes from the heap, also those above `LARGEST`, for the duration of a measurement.

    Whether a larger block is mapped depends on the free blocks that earlier work has left. Batch norm of 36 MiB took 4
    milliseconds or 26, and so did the networks that contain it.
    """
    keep_freed_memory()
    _mallopt(_M_MMAP_MAX, 0)
    try:
        torch.zeros(RESERVED // 4).add_(1)
        yield
    finally:
        _mallopt(_M_MMAP_MAX, _MMAP_MAX)


def keep_kernels() -> None:
    """Enlarge oneDNN's cache of compiled kernels, one per convolution shape.

    A search over the widths of ResNet-56 needs over a hundred shapes per candidate, most of which recur in later
    candidates: racing candidates take 0.48 s instead of 0.58 s. oneDNN reads the capacity when it compiles its first
    kernel; a value set by the user is kept. A search in bfloat16 takes 0.1 GiB more memory, a full cache about 0.6 GiB.
    """
    if not {f"{prefix}_PRIMITIVE_CACHE_CAPACITY" for prefix in ("ONEDNN", "DNNL")} & os.environ.keys():
        os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = str(KERNELS)
