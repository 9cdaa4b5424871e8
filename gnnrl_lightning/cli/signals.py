"""Ctrl-C and SIGTERM end a run at once, and cleanly: what it goes on from is on the disk already."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from gnnrl_lightning.errors import chain


class Stopped(SystemExit):
    """A signal ends the program, with the exit code that a shell gives to one that a signal has ended.

    Not a KeyboardInterrupt, which Lightning makes exit code 1.

    Args:
        signum: The signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum


def stop_signal(error: BaseException | None) -> int | None:
    """The signal that ends the program, if this error is one, or came up while one unwound; None: neither.

    The workers of a data loader end at the same signal, which PyTorch takes for an error of theirs in the process that
    waits for them.

    Args:
        error: What ended the program's work.
    """
    for each in chain(error):
        if isinstance(each, Stopped):
            return each.signum
        if isinstance(each, SIGTERMException):  # Lightning's own, under SLURM
            return signal.SIGTERM
    return None


class OwnHandler(Callback):
    """Takes SIGTERM back from Lightning's trainer, which would wait for the other processes to receive it first."""

    def __init__(self) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the handler back that was there before the trainer's; the trainer does so when it is done, too."""
        if threading.current_thread() is threading.main_thread() and not SLURMEnvironment.detect():
            signal.signal(signal.SIGTERM, self.handler)


def forward_signals(to_others: Callable[[], None]) -> None:
    """Let other processes know at once that a signal ends this one.

    Its own handler does not run while it waits for the others in a collective operation: these have to end it.

    Args:
        to_others: Called once, from a thread of its own.
    """
    ends = {signal.SIGINT, signal.SIGTERM}
    received, sent = os.pipe()
    os.set_blocking(sent, False)
    signal.set_wakeup_fd(sent)

    def wait() -> None:
        while not ends & {*os.read(received, 1)}:
            pass
        to_others()

    threading.Thread(target=wait, daemon=True, name="forwards-signals").start()


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise `Stopped` at the first Ctrl-C or SIGTERM within this block; further ones do not disturb the clean-up.

    Lightning's trainers call the handlers that they find after their own, and let the exception pass. Under SLURM
    SIGTERM stays theirs: a job that is requeued ignores it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = [signal.SIGINT] if SLURMEnvironment.detect() else [signal.SIGINT, signal.SIGTERM]
    process, stopping = os.getpid(), False

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if os.getpid() != process:  # a forked worker, which Ctrl-C reaches as well: it ends with its parent
            if signum == signal.SIGTERM:
                os._exit(128 + signum)
            return
        if not stopping:
            stopping = True
            raise Stopped(signum)

    before = {signum: signal.signal(signum, stop) for signum in signals}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
