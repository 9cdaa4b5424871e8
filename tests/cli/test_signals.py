import multiprocessing
import os
import signal
import time
import warnings

import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException

from gnnrl_lightning.cli.signals import Stopped, stop_signal, stopped_by_signals


@pytest.fixture(autouse=True)
def terminal():
    """Signals are handled as in a terminal, also if the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def unwinding(first, second):
    """The second error, which comes up while the first one unwinds."""
    try:
        try:
            raise first
        finally:
            raise second
    except BaseException as last:
        return last


def test_what_a_signal_has_brought_about_is_told_from_errors():
    assert stop_signal(Stopped(signal.SIGINT)) == signal.SIGINT
    assert stop_signal(SIGTERMException()) == signal.SIGTERM
    assert stop_signal(unwinding(Stopped(signal.SIGTERM), RuntimeError("a worker exited"))) == signal.SIGTERM
    assert stop_signal(unwinding(ValueError("of the user's"), RuntimeError("a worker exited"))) is None
    assert stop_signal(SystemExit(1)) is None and stop_signal(None) is None
    first, second = ValueError(), RuntimeError()
    first.__cause__, second.__cause__ = second, first
    assert stop_signal(first) is None


def ready_to_end(parent):
    parent.send("ready")
    time.sleep(60)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, None), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_forked_worker_is_ended_by_sigterm_and_not_by_ctrl_c(signum, code):
    with stopped_by_signals():
        ours, theirs = multiprocessing.Pipe()
        worker = multiprocessing.get_context("fork").Process(target=ready_to_end, args=(theirs,))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside other threads
            worker.start()
        assert ours.recv() == "ready"
        os.kill(worker.pid, signum)
        worker.join(1.5)
        assert worker.exitcode == code
        worker.kill()
        worker.join()


def test_a_closed_terminal_ends_a_run_unless_nohup_ignores_it():
    with pytest.raises(Stopped) as end, stopped_by_signals():
        os.kill(os.getpid(), signal.SIGHUP)
    assert end.value.code == 129
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stopped_by_signals():
        os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
