"""Interrupted trainings: of `pretrain`, `finetune`, and within a comparison."""

import json
import signal

import pytest
import torch
import yaml
from safetensors.torch import load_file

from gnnrl_lightning.cli import main
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.report.metrics import read_rows
from gnnrl_lightning.speed.training import TunedTraining
from gnnrl_lightning.training.checkpoint import LatestCheckpoint

GIVEN = ["--config", "small.yaml", "--run.threads", "1", "--run.name"]


@pytest.fixture
def resumed(workplace, interrupt, monkeypatch):
    """Interrupt a command at the end of an epoch, resume it, and count the epochs that are trained then."""

    def run(command, epoch, resume):
        with monkeypatch.context():
            interrupt(signal.SIGTERM, LatestCheckpoint, "on_train_epoch_end", epoch)
            with pytest.raises(SystemExit):
                main(command)
        monkeypatch.undo()
        monkeypatch.chdir(workplace)
        epochs, before = [], LatestCheckpoint.on_train_epoch_end
        monkeypatch.setattr(LatestCheckpoint, "on_train_epoch_end", lambda *given: epochs.append(1) or before(*given))
        main(resume)
        monkeypatch.undo()
        monkeypatch.chdir(workplace)
        return len(epochs)

    return run


def same_weights(first, second):
    first, second = load_file(first), load_file(second)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_pretraining_resumes_after_its_last_epoch(workplace, resumed, capsys):
    runs = workplace / "runs"
    main(["pretrain", *GIVEN, "dense"])
    # of three epochs, one is complete when the second one's checkpoint is interrupted
    assert resumed(["pretrain", *GIVEN, "dense_again"], 2, ["pretrain", "--resume", "runs/dense_again"]) == 2
    first, again = (runs / name / "checkpoints" for name in ("dense", "dense_again"))
    assert same_weights(first / "dense.safetensors", again / "dense.safetensors")
    assert not list(again.glob("*.ckpt*"))
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["pretrain", "--resume", "runs/dense_again"])
    assert end.value.code == 0 and "runs/dense_again is finished: there is nothing to resume" in capsys.readouterr().out


def test_a_resumed_training_has_the_precision_that_was_measured(workplace, resumed, monkeypatch):
    monkeypatch.setattr(Task, "tune_training", lambda *_: TunedTraining("bf16", True, {("bf16", True): 1.0}))
    main(["pretrain", *GIVEN, "open", "--pretraining.precision", "auto"])
    monkeypatch.setattr(Task, "tune_training", lambda *_: TunedTraining("bf16", True, {("bf16", True): 1.0}))
    again = ["pretrain", *GIVEN, "open_again", "--pretraining.precision", "auto"]
    assert resumed(again, 2, ["pretrain", "--resume", "runs/open_again"]) == 2  # measures by itself, if at all
    first, again = (workplace / "runs" / name for name in ("open", "open_again"))
    assert same_weights(*(run / "checkpoints" / "dense.safetensors" for run in (first, again)))
    config = yaml.safe_load((again / "config.yaml").read_text())
    assert (config["pretraining"]["precision"], config["pretraining"]["channels_last"]) == ("bf16", True)


def test_a_precision_of_the_trainer_is_that_of_all_trainings(workplace):
    main(["pretrain", *GIVEN, "mixed", "--trainer.precision", "bf16-mixed", "--pretraining.epochs", "1"])
    config = yaml.safe_load((workplace / "runs" / "mixed" / "config.yaml").read_text())
    assert config["pretraining"]["precision"] == config["finetuning"]["precision"] == "bf16"


def test_a_training_that_ends_before_its_figures_is_not_finished(workplace, interrupt, monkeypatch):
    with monkeypatch.context():
        interrupt(signal.SIGTERM, Task, "line", 1)
        with pytest.raises(SystemExit):
            main(["pretrain", *GIVEN, "silent"])
    monkeypatch.undo()
    monkeypatch.chdir(workplace)
    folder = workplace / "runs" / "silent"
    before = load_file(folder / "checkpoints" / "dense.safetensors")
    main(["pretrain", "--resume", str(folder)])
    after = load_file(folder / "checkpoints" / "dense.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert "result/top1_search" in read_rows(folder / "metrics.csv")[-1]


def test_a_finetuning_resumes_after_its_last_epoch(workplace, resumed):
    runs = workplace / "runs"
    main(["fit", *GIVEN[:-1], "--finetuning.epochs", "0", "--run.name", "whole"])
    command = ["finetune", "--artifact", "runs/whole/pruned", *GIVEN]
    main([*command, "tuned"])
    assert resumed([*command, "tuned_again"], 2, ["finetune", "--resume", "runs/tuned_again"]) == 1
    first, again = (runs / name / "pruned" / "weights.safetensors" for name in ("tuned", "tuned_again"))
    assert same_weights(first, again) and not list((runs / "tuned_again" / "checkpoints").glob("*.ckpt*"))


def test_the_finetuning_of_a_comparison_resumes_after_its_last_epoch(workplace, resumed):
    options = ["--compare.methods", "[uniform,greedy]", "--compare.seeds", "[0]", "--compare.finetune", "true"]
    command = ["compare", *options, *GIVEN]
    main([*command, "compared"])
    # three epochs of the dense network, two of the first winner, and one of the second
    assert resumed([*command, "compared_again"], 3 + 2 + 2, [*command, "compared_again"]) == 1
    first, again = (workplace / "runs" / name / "compare" for name in ("compared", "compared_again"))
    assert not [path for path in again.iterdir() if path.suffix == ".ckpt" or path.name.endswith(".found.json")]
    found, expected = (json.loads((each / "greedy-0.5-seed0.json").read_text()) for each in (again, first))
    clock = dict.fromkeys(("seconds", "latency_ms", "latency_measured_ratio"))
    assert found | clock == expected | clock
