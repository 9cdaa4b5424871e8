import io
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from gnnrl_lightning.report.progress import (
    SearchProgress,
    SearchStatus,
    TrainingProgress,
    hidden_steps,
    shown_steps,
)


def drawn(bar):
    console = Console(file=io.StringIO(), width=140)
    console.print(bar.get_renderable())
    return console.file.getvalue()


@pytest.fixture
def trainer():
    return SimpleNamespace(is_global_zero=True, max_epochs=4, callback_metrics={}, current_epoch=0)


def test_search_bar_asks_whenever_it_is_drawn(trainer):
    status = SearchStatus(evaluations=0)
    progress = SearchProgress(lambda: status, evaluations=96)
    progress.on_fit_start(trainer, None)
    try:
        assert "0/96" in drawn(progress.bar) and "best" not in drawn(progress.bar)
        status = SearchStatus(evaluations=24, best_reward=-0.0525, kept={"macs": 0.4987, "params": 0.6})
        text = drawn(progress.bar)
    finally:
        progress.on_fit_end(trainer, None)
    assert "24/96 evaluations, best -0.0525, macs 49.9%, params 60.0%, left" in text
    assert progress.bar is None


def test_training_bar_counts_epochs_and_shows_the_loss(trainer):
    progress = TrainingProgress("dense network")
    progress.on_fit_start(trainer, None)
    try:
        progress.on_train_epoch_end(trainer, None)
        trainer.callback_metrics["train/loss"] = torch.tensor(0.25)
        progress.on_train_epoch_end(trainer, None)
        text = drawn(progress.bar)
    finally:
        progress.on_exception(trainer, None, RuntimeError())
    assert "dense network" in text and "2/4 epochs, loss 0.2500, left" in text
    assert progress.bar is None


def test_other_ranks_show_nothing(trainer):
    trainer.is_global_zero = False
    progress = TrainingProgress("dense network")
    progress.on_fit_start(trainer, None)
    progress.on_train_epoch_end(trainer, None)
    assert progress.bar is None


def test_a_resumed_training_begins_where_it_was(trainer):
    trainer.current_epoch = 3
    progress = TrainingProgress("pruned network")
    progress.on_fit_start(trainer, None)
    try:
        progress.on_train_start(trainer, None)
        assert "3/4 epochs" in drawn(progress.bar)
    finally:
        progress.on_fit_end(trainer, None)


def test_steps_are_shown_or_not(capsys):
    with shown_steps("calibration", 3) as advance:
        advance()
        advance()
    assert "calibration" in (out := capsys.readouterr().out) and "2/3 steps" in out
    with hidden_steps("calibration", 3) as advance:
        advance()
    assert capsys.readouterr().out == ""
