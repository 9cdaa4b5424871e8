import os

import pytest

from gnnrl_lightning.cli import main
from tests.support.workplace import working_in


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with a network of the user's own and its configuration; the tests run in it."""
    with working_in(tmp_path_factory.mktemp("workplace")) as folder:
        yield folder


@pytest.fixture(scope="module")
def fitted(workplace):
    """The folder of a finished run."""
    main(["fit", "--config", "small.yaml", "--run.name", "fitted"])
    return workplace / "runs" / "fitted"


@pytest.fixture
def interrupt(monkeypatch):
    """Send this process a signal when a method is called for the n-th time."""

    def at(signum, owner, name, count):
        whole, calls = getattr(owner, name), []

        def wrapped(*arguments, **named):
            calls.append(arguments)
            if len(calls) == count:
                os.kill(os.getpid(), signum)
            return whole(*arguments, **named)

        monkeypatch.setattr(owner, name, wrapped)

    return at
