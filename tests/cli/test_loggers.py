import json

import pytest

from gnnrl_lightning.cli.loggers import LOGGERS, with_loggers

BOARD = json.dumps(LOGGERS["tensorboard"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["fit", "--trainer.logger", "tensorboard"], ["fit", "--trainer.logger", BOARD]),
        (["fit", "--trainer.logger=tensorboard", "-x"], ["fit", f"--trainer.logger={BOARD}", "-x"]),
        (["fit", "--trainer.logger", "my.Logger"], ["fit", "--trainer.logger", "my.Logger"]),
        (["fit", "--run.name", "tensorboard"], ["fit", "--run.name", "tensorboard"]),
    ],
)
def test_short_names_stand_for_configurations(given, expected):
    assert with_loggers(given) == expected
