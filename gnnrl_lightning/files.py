"""Write files atomically, and record checksums of those that decide a result.

`checksums.json` in a folder has the SHA-256 of its files that were written with a checksum. A file that was damaged or
edited since is noticed before it is read again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gnnrl_lightning.errors import UserError, one_line

SUMS = "checksums.json"


@contextmanager
def replacing(path: Path, checksum: bool = False) -> Iterator[Path]:
    """Atomically replace `path`: an interrupted write leaves the old file intact.

    Args:
        path: The file to replace; its folder is created if it is missing.
        checksum: Whether to record a checksum, see `keep`.

    Yields:
        A temporary file to write. It becomes `path` when the block ends without an error.

    Raises:
        OSError: The file cannot be written, or is a folder or a device; libraries that write it may raise their own
            errors for that.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file: expected the name of a file to write", str(path))
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        with os_errors(path):
            yield partial
        if checksum:
            keep(partial, path)
        else:
            os.replace(partial, path)
    except Exception:
        with suppress(OSError):
            partial.unlink(missing_ok=True)  # it takes room, of which there may be none left
        raise


def keep(partial: Path, path: Path) -> None:
    """Atomically rename a complete file, and record its checksum.

    Until the new file is in place, the checksums of both the old and the new one are recorded.

    Args:
        partial: The complete file, in the folder of `path`.
        path: Its name.
    """
    sums = read_sums(path.parent)
    sums[path.name] = [*([sha256(path)] if path.is_file() else []), sha256(partial)]
    with replacing(path.parent / SUMS) as file:
        file.write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def unchanged(path: Path) -> bool:
    """Whether a file is as it was written: its checksum is recorded in its folder.

    Raises:
        UserError: The checksums of the folder cannot be read.
    """
    return sha256(path) in read_sums(path.parent).get(path.name, [])


def read_sums(folder: Path) -> dict[str, list[str]]:
    """Return the recorded checksums of a folder by file name; empty if it has none.

    Raises:
        UserError: They are damaged.
    """
    path = folder / SUMS
    if not path.exists():
        return {}
    try:
        sums = json.loads(text_of(path))
        return {str(name): [str(each) for each in found] for name, found in sums.items()}
    except (ValueError, AttributeError, TypeError, RecursionError, IsADirectoryError) as error:
        raise UserError(
            f"{path} is damaged ({one_line(error)}): expected the checksums of the files beside it; begin again in "
            "another folder"
        ) from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def text_of(path: Path) -> str:
    """Return the text of a regular file; a pipe or a device, which may never end, is not read.

    Args:
        path: The file.

    Raises:
        ValueError: It is a pipe or a device, or its encoding is not UTF-8.
        OSError: It cannot be read, or is a folder.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError("it is no regular file")
    return path.read_text(encoding="utf-8")


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Raise the `OSError` behind errors of libraries that write files within this block.

    Args:
        path: The file that is written, for the message.
    """
    try:
        yield
    except Exception as error:
        found = _as_os_error(error, path)
        if found is error:
            raise
        raise found from error


def _as_os_error(error: Exception, path: Path) -> Exception:
    """Return the error of the operating system behind an error of a library that writes files, else the error itself.

    safetensors has the number in its message; PyTorch's own writer only says that it failed to write.
    """
    number = re.search(r"\(os error (\d+)\)", str(error))
    if isinstance(error, OSError) and error.filename is None:  # of a write
        return OSError(error.errno, error.strerror or one_line(error), str(path))
    if number is not None and not isinstance(error, OSError):
        return OSError(int(number[1]), os.strerror(int(number[1])), str(path))
    if isinstance(error, RuntimeError) and re.search("write failed|failed writing", str(error)):
        return OSError(errno.EIO, "it cannot be written", str(path))
    return error


def finite(value: Any) -> Any:
    """Replace floats that are not finite, which JSON does not have, by None, recursively."""
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
