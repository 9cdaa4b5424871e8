"""Handlers for signals: a run ends at once and cleanly; the state to resume from is on disk already."""

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

ENDS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that end a run, besides Ctrl-C; Windows has no SIGHUP."""


class Stopped(SystemExit):
    """Exit of the program because of a signal, with the shell's exit code for that signal (128 + its number).

    It is not a KeyboardInterrupt, which Lightning turns into exit code 1.

    Args:
        signum: The signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum


def stop_signal(error: BaseException | None) -> int | None:
    """Return the signal that ends the program if this error, or one in its chain, stands for a signal; else None.

    The workers of a data loader end at the same signal, which PyTorch reports as a worker error in the process that
    waits for them.
    """
    for each in chain(error):
        if isinstance(each, Stopped):
            return each.signum
        if isinstance(each, SIGTERMException):  # Lightning's own, under SLURM
            return signal.SIGTERM
    return None


class OwnHandler(Callback):
    """Restore our SIGTERM handler: that of Lightning's trainer first waits until the other processes receive it too."""

    def __init__(self) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the handler from before the trainer's; the trainer also restores it when it is done."""
        if threading.current_thread() is threading.main_thread() and not SLURMEnvironment.detect():
            signal.signal(signal.SIGTERM, self.handler)


def forward_signals(to_others: Callable[[], None]) -> None:
    """Notify the other processes at once when a signal ends this one.

    The handler of this process does not run while it waits in a collective operation; the others have to end that.

    Args:
        to_others: Notifies the other processes; called once, from a separate thread.
    """
    ends = {signal.SIGINT, *ENDS}
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
    """Raise `Stopped` at the first of these signals within this block; later ones do not interrupt the clean-up.

    Lightning's trainers call the existing handlers after their own, and let the exception pass. Under SLURM, SIGTERM
    is left to Lightning: a job that is requeued ignores it. SIGHUP (the terminal was closed) stays ignored under nohup.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = [signal.SIGINT, *(signum for signum in ENDS if signal.getsignal(signum) != signal.SIG_IGN)]
    if SLURMEnvironment.detect():
        signals.remove(signal.SIGTERM)
    process, stopping = os.getpid(), False

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if os.getpid() != process:  # a forked worker, which also receives Ctrl-C: it ends with its parent
            if signum in ENDS:
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
