"""The lock on a run folder: one process at a time writes there."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from gnnrl_lightning.errors import UserError

LOCK, HOLDER = ".lock", ".holder.json"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder during the block. The operating system releases it when the process ends.

    Args:
        folder: The folder, which exists.

    Raises:
        UserError: Another process holds the lock; the message has its id and host.
        OSError: The folder cannot be written.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"{folder} is in use by {_holder(folder)}: expected one process at a time; wait until it ends, or stop it"
        ) from error
    try:
        own = {"process": os.getpid(), "host": platform.node()}
        (folder / HOLDER).write_text(json.dumps(own), encoding="utf-8")
        yield
    finally:
        lock.release()


def _holder(folder: Path) -> str:
    """Describe the process that holds the lock."""
    try:
        found = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f"process {found['process']} on {found['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun
        return "another process"
