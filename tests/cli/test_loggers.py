import json

import pytest

from gnnrl_lightning.cli import loggers
from gnnrl_lightning.cli.loggers import LOGGERS, with_loggers
from gnnrl_lightning.errors import UserError

BOARD = json.dumps(LOGGERS["tensorboard"])


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: name)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["fit", "--trainer.logger", "tensorboard"], ["fit", "--trainer.logger", BOARD]),
        (["fit", "--trainer.logger=tensorboard", "-x"], ["fit", f"--trainer.logger={BOARD}", "-x"]),
        (["fit", "--trainer.logger", "my.Logger"], ["fit", "--trainer.logger", "my.Logger"]),
        (["fit", "--run.name", "tensorboard"], ["fit", "--run.name", "tensorboard"]),
    ],
)
def test_short_names_stand_for_configurations(given, expected, installed):
    assert with_loggers(given) == expected


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"--trainer.logger tensorboard: its package is not installed; pip install tens"
    ):
        with_loggers(["fit", "--trainer.logger", "tensorboard"])
