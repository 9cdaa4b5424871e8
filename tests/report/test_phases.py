import csv

from lightning.pytorch.loggers import CSVLogger

from gnnrl_lightning.report.phases import PhaseLogger


def test_phases_share_one_file(tmp_path):
    run = CSVLogger(tmp_path, name="", version="")
    for phase, loss in (("dense", 2.0), ("pruned", 1.0)):
        logger = PhaseLogger(run, phase)
        logger.log_hyperparams({"epochs": 3})
        logger.log_metrics({"train/loss": loss}, step=7)
        logger.save()
        assert (logger.name, logger.version) == (run.name, run.version)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"dense/train/loss": "2.0", "pruned/train/loss": "", "step": "7"},
        {"dense/train/loss": "", "pruned/train/loss": "1.0", "step": "7"},
    ]
