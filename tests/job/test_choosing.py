"""The table of steps that choose the winner of a search."""

import pytest

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.job import choosing
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.choosing import choose, files_of
from gnnrl_lightning.job.compare_options import CompareOptions
from gnnrl_lightning.job.comparison import Comparison
from gnnrl_lightning.job.delivery import deliver
from gnnrl_lightning.job.searching import search
from gnnrl_lightning.job.trained import train
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.training.options import TrainingOptions
from tests.support.options import options_of
from tests.support.two_hidden import two_hidden_task


@pytest.fixture
def checked(monkeypatch):
    training = {"pretraining": TrainingOptions(epochs=1), "finetuning": TrainingOptions(epochs=0)}
    options = options_of(evaluations=8, calibration_examples=32, **training)
    return check(two_hidden_task(monkeypatch), Budget(macs=0.5), options)


def test_steps_are_taken_in_order_wherever_a_search_ends(checked, tmp_path, monkeypatch):
    """By fit, and by each row of a comparison; each step gets the winner of the one before."""
    import dataclasses

    taken = []

    def worst(searched, file):
        taken.append(("worst", searched.best.widths))
        return dataclasses.replace(searched, best=min(searched.history, key=lambda item: item.merit))

    def noted(searched, file):
        taken.append(("noted", searched.best.widths, file and file.name))
        return searched

    monkeypatch.setattr(choosing, "STEPS", {"worst": worst, "finals": noted})
    folder = RunFolder.create(tmp_path, "run")
    searched = search(train(checked, folder), "random", folder)
    worst_of = min(searched.history, key=lambda item: item.merit)
    chosen = choose(searched, files_of(folder))
    assert chosen.best == worst_of != searched.best
    delivered = deliver(searched, folder)
    assert delivered.figures["pruned"]["widths"] == list(worst_of.widths)
    comparison = Comparison(checked, CompareOptions(methods=["random"], seeds=[0]), {})
    (row,) = comparison.run(RunFolder.create(tmp_path, "compared"))["rows"]
    assert [name for name, *_ in taken] == ["worst", "noted"] * 3
    assert taken[1][1:] == (worst_of.widths, "finals.jsonl")
    assert tuple(row["widths"]) == taken[5][1] and taken[5][2].startswith("random-0.5")
