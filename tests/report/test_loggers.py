from types import SimpleNamespace

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from gnnrl_lightning.report.loggers import Evidence, WandbAxes, publish, step_of
from gnnrl_lightning.report.pages.drawing import canvas, styled


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("dense/train/loss", "dense/epoch"),
        ("pruned/val/top1", "pruned/epoch"),
        ("dense/epoch", None),
        ("losses/entropy", "epoch"),
        ("surrogate/tau", "search/evaluations"),
        ("search/evaluations", None),
        ("result/macs", None),
        ("epoch", None),
        ("stage-1/pruned/val/top1", "stage-1/pruned/epoch"),
        ("stage-2/losses/entropy", "stage-2/epoch"),
        ("stage-1/surrogate/tau", "stage-1/search/evaluations"),
        ("stage-1/search/evaluations", None),
        ("stage-1/epoch", None),
    ],
)
def test_each_metric_has_the_axis_of_its_phase(name, step):
    assert step_of(name) == step


def test_axes_are_defined_once():
    defined = []
    run = SimpleNamespace(define_metric=lambda name, step_metric: defined.append((name, step_metric)))
    axes = WandbAxes(SimpleNamespace(experiment=run, name="project", version="ab12"))
    for _ in range(2):
        axes.log_metrics({"dense/train/loss": 1.0, "dense/epoch": 0.0, "step": 1.0}, step=1)
    axes.log_metrics({"search/new": 3.0})
    axes.log_hyperparams({})
    assert defined == [("dense/train/loss", "dense/epoch"), ("search/new", "search/evaluations")]
    assert (axes.name, axes.version) == ("project", "ab12")


def test_tensorboard_shows_tables_and_figures(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with styled():
        figure, _ = canvas()
        figure.savefig(tmp_path / "widths.png", dpi=40)
    rows = [{"network": "dense", "top1": 99.0}, {"network": "ours", "top1": 98.5}]
    logger = TensorBoardLogger(tmp_path / "logs")
    publish([CSVLogger(tmp_path), logger], Evidence({"results": rows}, [tmp_path / "widths.png"]))
    logger.finalize("success")
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    tags = events.Tags()
    assert tags["images"] == ["report/widths"]
    (event,) = events.Tensors("report/results/text_summary")
    assert event.tensor_proto.string_val[0].decode() == "|network|top1|\n|-|-|\n|dense|99.0|\n|ours|98.5|"
    (image,) = events.Images("report/widths")
    assert (image.width, image.height) == (200, 124)
