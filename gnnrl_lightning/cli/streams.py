"""Standard output and error that may be closed, full, or unable to encode: they never end a run."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast


class LastingStream(io.TextIOBase):
    """A text stream that drops what cannot be written, from the first failure on.

    Args:
        stream: The stream to write to.

    Attributes:
        failure: The first error; None: all has been written. A reader that closed its end (`head`) is no failure.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.failure: OSError | None = None

    def write(self, text: str, /) -> int:
        """Write text, or drop it."""
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush, or drop what cannot be written."""
        self._try(self.stream.flush)

    def _try(self, action: Any, *given: Any) -> None:
        try:
            action(*given)
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self.failure = error
            # All that is still buffered, and all that follows, goes nowhere.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)

    def isatty(self) -> bool:
        """Whether this is a terminal."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """The file descriptor."""
        return self.stream.fileno()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Let standard output and error survive within this block whatever becomes of their readers.

    Streams that were closed before the program began are opened as the null device, so that no other file takes their
    descriptors. Characters that the locale lacks are replaced. Streams that are not of the operating system (a
    notebook's, a test's) are left alone.

    Raises:
        OSError: At the end, if standard output could not be written, for example to a full disk.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor, which is this one
    before = sys.stdout, sys.stderr
    wrapped = [_lasting(stream) for stream in before]
    sys.stdout, sys.stderr = (cast("Any", stream) for stream in wrapped)
    ended: SystemExit | None = None
    try:
        yield
    except SystemExit as end:
        if end.code:
            raise
        ended = end
    finally:
        for stream in wrapped:
            if isinstance(stream, LastingStream):
                stream.flush()
        sys.stdout, sys.stderr = before
    if isinstance(wrapped[0], LastingStream) and wrapped[0].failure is not None:
        reason = wrapped[0].failure
        raise OSError(reason.errno, reason.strerror, "standard output")
    if ended is not None:
        raise ended


def _lasting(stream: Any) -> Any:
    if not isinstance(stream, io.TextIOWrapper) or stream not in (sys.__stdout__, sys.__stderr__):
        return stream
    stream.reconfigure(errors="replace")
    return LastingStream(stream)
