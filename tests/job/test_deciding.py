from dataclasses import replace

import pytest

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import Digits
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.speed.training import TunedTraining
from gnnrl_lightning.training.options import TrainingOptions
from tests.job.test_finetuning import task as classifier
from tests.support.options import options_of

task = classifier

OPEN = TrainingOptions(epochs=1, precision="auto")


@pytest.fixture
def measured(monkeypatch):
    """Widths of the first layers of the networks that are measured."""
    found = []

    def tune(self, network):
        found.append(network[1].out_features)
        return TunedTraining("bf16", True, {("bf16", True): 1.0})

    monkeypatch.setattr(Task, "tune_training", tune)
    return found


def test_a_fine_tuning_is_measured_on_a_network_of_the_budget(task, measured):
    checked = check(task, Budget(macs=0.5), options_of(finetuning=OPEN, pretraining=OPEN))
    assert measured == [12]  # the dense network is trained already
    finetuning, pretraining = checked.job.options.finetuning, checked.job.options.pretraining
    assert (finetuning.precision, finetuning.channels_last) == ("bf16", True)
    assert (pretraining.precision, pretraining.channels_last) == ("32", False)
    assert [type(each) for each in checked.measured] == [TunedTraining]


def test_nothing_is_measured_that_is_given_or_not_trained(task, measured):
    given = TrainingOptions(epochs=1, precision="bf16")
    found = check(task, Budget(macs=0.5), options_of(finetuning=given)).job.options.finetuning
    assert (found.precision, found.channels_last) == ("bf16", False)
    none = TrainingOptions(epochs=0, precision="auto")
    assert check(task, Budget(macs=0.5), options_of(finetuning=none)).job.options.finetuning.precision == "32"
    assert not measured


def test_steps_are_measured_on_held_out_examples(task):
    found = task.tune_training(task.build())
    assert found.milliseconds.keys() >= {("32", False), ("32", True)}
    assert all(value > 0 for value in found.milliseconds.values())


@pytest.mark.parametrize(("holdout", "examples"), [(1400, 37), (1100, 256)])
def test_candidates_are_repaired_with_no_more_examples_than_there_are(task, holdout, examples):
    """Of 1,437, the first holdout leaves fewer than the 256 that this network would read."""
    few = replace(task, data=Digits(holdout_size=holdout))
    assert check(few, Budget(macs=0.5)).job.options.candidate.calibration_examples == examples
