"""Ctrl-C and SIGTERM end a run at once, and cleanly: what it goes on from is on the disk already."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment


class Stopped(SystemExit):
    """A signal ends the program, with the exit code that a shell gives to one that a signal has ended.

    Not a KeyboardInterrupt, which Lightning makes exit code 1.

    Args:
        signum: The signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise `Stopped` at the first Ctrl-C or SIGTERM within this block; further ones do not disturb the clean-up.

    Lightning's trainers call the handlers that they find, see their own to an end, and let the exception pass. Under
    SLURM SIGTERM stays theirs: a job that is requeued ignores it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = [signal.SIGINT] if SLURMEnvironment.detect() else [signal.SIGINT, signal.SIGTERM]
    process, stopping = os.getpid(), False

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if os.getpid() != process:  # a forked worker, whose parent is being stopped
            os._exit(128 + signum)
        if not stopping:
            stopping = True
            raise Stopped(signum)

    before = {signum: signal.signal(signum, stop) for signum in signals}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
