"""Write files atomically."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write in the place of `path`; who is killed meanwhile leaves `path` as it was.

    Args:
        path: The file, in a folder that is made if it is not there.

    Yields:
        The file to write; it becomes `path` once the block ends without an error.
    """
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    yield partial
    os.replace(partial, path)
