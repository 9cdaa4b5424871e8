"""Write files atomically."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Atomically replace `path`: an interrupted write leaves the old file intact.

    Args:
        path: The file to replace; its folder is created if it is missing.

    Yields:
        A temporary file to write. It becomes `path` when the block ends without an error.
    """
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    yield partial
    os.replace(partial, path)
