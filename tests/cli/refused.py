"""What the command line says of bad input, and leaves."""

import re

import pytest

from gnnrl_lightning.cli import main

# Of other packages, and of the lock, which a refused process may have taken.
UNCOUNTED = {"__pycache__", "wandb", ".lock", ".holder.json"}


def assert_refused(capsys, folder, arguments, message):
    """One line, exit code 2, and nothing is written into the folder."""
    before = tree(folder)
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", "small.yaml", "--run.root", "bad", *arguments])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1 and error.startswith("error: "), error
    assert re.search(message, error), error
    assert tree(folder) == before


def tree(folder):
    files = [path for path in folder.rglob("*") if not UNCOUNTED & set(path.parts)]
    return sorted((str(path), path.stat().st_mtime_ns) for path in files)
