"""Fine-tuning in a job: what is kept, recorded, refused and warned of."""

import pytest
import torch
from torch import nn

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import Digits
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.finetuning import finetune
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.job.trained import train
from gnnrl_lightning.runs.folder import PRUNED, RunFolder
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.training.train import quiet_trainer
from tests.support.options import options_of


@pytest.fixture(scope="module")
def task():
    """A classifier of digits with 24 hidden channels."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
    task = Task(network, Digits())
    task.data.setup()
    task.train(network, TrainingOptions(epochs=2), quiet_trainer)
    return task


def pruned(task, width, **options):
    """A trained job, and its network pruned to a width."""
    given = {"finetuning": TrainingOptions(**options), "delivery": {"calibration_examples": 64}}
    trained = train(check(task, Budget(macs=0.5), options_of(calibration_examples=64, **given)))
    pruner = trained.final_pruner
    return trained, pruner.prune(pruner.plan(torch.tensor([width])))


def finetuned(trained, before, folder):
    folder.checkpoints.mkdir(exist_ok=True)
    plan = trained.final_pruner.plan(torch.tensor([before[1].out_features]))
    return finetune(trained, {PRUNED: before}, {PRUNED: plan}, folder)[PRUNED]


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def test_a_fine_tuning_that_diverges_is_undone(task, folder):
    """Hours of a search are not lost by a learning rate; a second call finds the same."""
    trained, before = pruned(task, 12, epochs=1, learning_rate=1e9)
    with pytest.warns(UserWarning, match=r"pruned network: the training diverged: the network has \d+ NaN or infinite"):
        found = finetuned(trained, before, folder)
    assert found.network is before and found.figures["finetuning_kept"] is False
    assert found.figures["top1_search_after"] == found.figures["top1_search_before"]
    assert finetuned(trained, before, folder).figures == found.figures


@pytest.mark.parametrize(("rate", "kept"), [(0.1, True), (3.0, False)])
def test_a_fine_tuning_that_ends_below_its_start_is_undone(task, folder, rate, kept):
    """By the holdout, with the last epoch: the test examples have no say, and neither have other epochs."""
    trained, before = pruned(task, 12, epochs=4, learning_rate=rate, gradient_clip=1)
    found = finetuned(trained, before, folder)
    figures = found.figures
    assert figures["finetuning_kept"] is kept == (figures["top1_search_after"] >= figures["top1_search_before"])
    assert (found.network is before) is not kept
    assert task.figures(before, task.data.holdout)["top1"] == figures["top1_search_before"]
    if kept:
        assert task.figures(found.network, task.data.holdout)["top1"] == figures["top1_search_after"]


@pytest.mark.parametrize(
    ("wins", "losses", "kept"),
    [
        (0, 4, True),  # 1 / 16
        (0, 5, False),  # 1 / 32
        (3, 8, True),  # (1 + 11 + 55 + 165) / 2048 = 0.113
        (2, 9, False),  # 67 / 2048 = 0.033
        (9, 2, True),
        (0, 0, True),
    ],
)
def test_a_difference_of_few_examples_is_chance(task, folder, monkeypatch, wins, losses, kept):
    """Of 287 images, after fine-tuning `wins` more and `losses` others fewer are right."""
    before = torch.arange(287) < 200
    after = before.clone()
    after[200 : 200 + wins], after[:losses] = True, False
    trained, network = pruned(task, 12, epochs=1)
    seen = iter([before, before, before, after])  # a guess and the dense network are measured, too
    given = ((right, {"top1": 100 * right.double().mean().item()}) for right in seen)
    monkeypatch.setattr(Task, "scored", lambda *_: next(given))
    monkeypatch.setattr(Task, "train", lambda *_, **__: [{"top1": 0.0}])
    found = finetuned(trained, network, folder)
    assert found.figures["finetuning_kept"] is kept
    assert found.figures["top1_search_after"] == pytest.approx(100 * (200 + wins - losses) / 287)


def test_the_figures_of_all_epochs_outlive_an_interruption(task, folder):
    trained, before = pruned(task, 12, epochs=3, learning_rate=0.05)
    first = finetuned(trained, before, folder)
    assert len(first.figures["top1_search_epochs"]) == 3
    assert first.figures["top1_search_epochs"][-1] == pytest.approx(first.figures["top1_search_after"])
    assert folder.weights(PRUNED).is_file() and not folder.checkpoint(PRUNED).exists()
    again = finetuned(trained, before, folder)  # loads what is trained
    assert again.figures == first.figures


def of_features(lesson):
    """Fails without features."""
    return lesson.objective.distillation(lesson.outputs, lesson.taught, 4.0) + sum(
        (ours - theirs).square().mean() for ours, theirs in lesson.features
    ) / len(lesson.features)


def test_a_distillation_of_features_alone_trains(task, folder):
    """Before the search it is tried with the features of the dense network, in training it has the kept channels."""
    trained, before = pruned(task, 12, epochs=1, distillation=f"{__name__}.of_features")
    found = finetuned(trained, before, folder)
    assert found.figures["finetuning_kept"] and not torch.equal(found.network[1].weight, before[1].weight)


def test_without_epochs_nothing_changes(task, folder):
    trained, before = pruned(task, 12, epochs=0)
    found = finetuned(trained, before, folder)
    assert found.figures["top1_search_epochs"] == [] and found.figures["finetuning_kept"]
    assert found.network is before
    assert found.figures["top1_search_after"] == found.figures["top1_search_before"]


def test_a_network_near_chance_is_warned_of(task, folder):
    trained, before = pruned(task, 12, epochs=1, learning_rate=0.05)
    before[3].weight.detach().neg_()
    with pytest.warns(UserWarning, match="the pruned network starts its fine-tuning near chance") as caught:
        found = finetuned(trained, before, folder)
    assert found.figures["top1_search_before"] < 10
    dense = task.figures(task.original(), task.data.holdout)["top1"]
    zeros = 100 * (task.data.holdout.labels == 0).float().mean()  # the class of equal outputs
    (message,) = [str(each.message) for each in caught if "chance" in str(each.message)]
    assert f"of a guess {zeros:.2f} %, of the dense network {dense:.2f} %" in message


@pytest.mark.parametrize(
    ("section", "options", "message"),
    [
        ("finetuning", {"optimizer": "torch.optim.Muon"}, "finetuning: optimizer 'torch.optim.Muon' refuses"),
        ("finetuning", {"schedule": "math.hypot"}, "finetuning: schedule math.hypot is .*: expected a share"),
        ("pretraining", {"optimizer": "torch.optim.Muon"}, None),  # not read: the network is trained
    ],
)
def test_what_does_not_fit_is_refused_before_the_search(task, section, options, message):
    given = options_of(**{section: TrainingOptions(**options)})
    if message is None:
        assert check(task, Budget(macs=0.5), given).job.options.pretraining.optimizer == options["optimizer"]
    else:
        with pytest.raises(UserError, match=message):
            check(task, Budget(macs=0.5), given)
