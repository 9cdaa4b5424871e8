"""Keep what is used again: on CPUs freed memory and compiled kernels are dear to get anew."""

from __future__ import annotations

import ctypes
import os
import sys

LARGEST = 32 * 2**20
"""Blocks up to 32 MiB come from the heap; it is glibc's upper bound."""

KEPT = 2**30
"""Bytes of free heap that are kept at most."""

KERNELS = 8192
"""Kernels that oneDNN keeps; its own default is 1,024."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Tell glibc to reuse freed blocks instead of giving them back to the system.

    By default each block above a threshold is mapped when it is allocated and unmapped when it is freed, so that every
    tensor is faulted in page by page. With small networks that takes longer than computing: scoring states of 93 nodes
    took 481 microseconds a state before and 92 after. The peak of the memory stays what it was.

    Returns:
        Whether there was a glibc to tell; other allocators are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(_M_TRIM_THRESHOLD, KEPT))


def keep_kernels() -> None:
    """Let oneDNN keep more of the kernels that it compiles, one for each shape of a convolution.

    A search over the widths of ResNet-56 needs over a hundred shapes a candidate, most of which come back in later
    ones: candidates of a race take 0.48 s in place of 0.58. oneDNN reads the number when it compiles its first kernel;
    what the user has set counts. A search in bfloat16 takes 0.1 GiB more, one that fills the cache some 0.6.
    """
    if not {f"{prefix}_PRIMITIVE_CACHE_CAPACITY" for prefix in ("ONEDNN", "DNNL")} & os.environ.keys():
        os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = str(KERNELS)
