import csv

import pytest
import torch

from gnnrl_lightning.report.metrics import MetricsFile
from gnnrl_lightning.report.phases import PhaseLogger


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_columns_may_come_later(tmp_path):
    path = tmp_path / "metrics.csv"
    logger = MetricsFile(path)
    logger.save()
    assert not path.exists()
    logger.log_metrics({"loss": torch.tensor(0.5)}, step=3)
    logger.save()
    logger.log_metrics({"loss": 0.25})
    logger.log_metrics({"top1": 90.0}, step=5)
    logger.log_metrics({}, step=6)
    logger.finalize("success")
    assert rows(path) == [
        {"loss": "0.5", "step": "3", "top1": ""},
        {"loss": "0.25", "step": "", "top1": ""},
        {"loss": "", "step": "5", "top1": "90.0"},
    ]
    assert (logger.name, logger.version) == ("metrics", "")


def test_a_file_is_continued_without_the_line_that_was_cut_off(tmp_path):
    path = tmp_path / "metrics.csv"
    for loss in (2.0, 1.0):
        logger = MetricsFile(path)
        logger.log_metrics({"loss": loss})
        logger.save()
    with path.open("a") as file:
        file.write("0.")
    logger = MetricsFile(path)
    logger.log_metrics({"loss": 0.5})
    logger.save()
    assert [row["loss"] for row in rows(path)] == ["2.0", "1.0", "0.5"]
    assert [item.name for item in tmp_path.iterdir()] == ["metrics.csv"]


@pytest.mark.parametrize(
    ("phase", "epochs", "kept"),
    [
        # Whatever follows the last complete epoch is forgotten, with epochs or without.
        (None, 3, [0.0, 0.1, 1.0, 1.5, 1.1, 1.2]),
        (None, 2, [0.0, 0.1, 1.0, 1.5, 1.1]),
        (None, 0, [0.0, 0.1]),
        ("dense", 1, [0.0]),
        ("dense", 2, [0.0, 0.1]),
        # A phase that has logged nothing yet comes after all that was logged.
        ("uniform", 0, [0.0, 0.1, 1.0, 1.5, 1.1, 1.2, 9.0]),
    ],
)
def test_metrics_are_in_step_with_the_checkpoint(tmp_path, phase, epochs, kept):
    run = MetricsFile(tmp_path / "metrics.csv")
    dense = PhaseLogger(run, "dense")
    for epoch in range(2):
        dense.log_metrics({"epoch": epoch, "loss": epoch / 10})
    run.log_metrics({"epoch": 0, "loss": 1.0})
    run.log_metrics({"loss": 1.5})  # a callback's, in the middle of an iteration
    run.log_metrics({"epoch": 1, "loss": 1.1})
    run.log_metrics({"epoch": 2, "loss": 1.2})
    run.log_metrics({"loss": 9.0})
    run.save()
    (run if phase is None else PhaseLogger(run, phase)).resume(epochs)
    assert [float(row["loss"] or row["dense/loss"]) for row in rows(run.path)] == kept
