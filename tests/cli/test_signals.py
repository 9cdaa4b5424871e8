import signal

from lightning.pytorch.utilities.exceptions import SIGTERMException

from gnnrl_lightning.cli.signals import Stopped, stop_signal


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
