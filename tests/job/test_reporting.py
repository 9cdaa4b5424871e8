"""What the loggers of a finished run show."""

import pytest

from gnnrl_lightning.job.reporting import evidence
from gnnrl_lightning.job.saved import write_json
from gnnrl_lightning.runs.folder import RunFolder

ROWS = [
    {"method": "agent", "seed": 0, "budget": 0.5, "top1_search": 90.0, "widths": [3], "alike": [{"milliseconds": 1.0}]},
    {"method": "greedy", "seed": None, "budget": "macs=0.3", "top1_search": 88.0, "widths": [2], "finals": {}},
]


def test_runs_of_a_comparison_are_a_table_whatever_was_done_for_some_of_them(tmp_path):
    folder = RunFolder(tmp_path)
    write_json(folder.compare, {"rows": ROWS})
    assert evidence(folder).tables == {
        "runs": [
            {"method": "agent", "seed": 0, "budget": "0.5", "top1_search": 90.0},
            {"method": "greedy", "seed": None, "budget": "macs=0.3", "top1_search": 88.0},
        ]
    }


def test_weights_and_biases_takes_the_table(tmp_path):
    wandb = pytest.importorskip("wandb")
    folder = RunFolder(tmp_path)
    write_json(folder.compare, {"rows": ROWS})
    (rows,) = evidence(folder).tables.values()
    made = wandb.Table([*rows[0]], [[*row.values()] for row in rows])
    assert made.data == [["agent", 0, "0.5", 90.0], ["greedy", None, "macs=0.3", 88.0]]
