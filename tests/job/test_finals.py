"""Finalists of a search: trained once, counted, and the best of them delivered."""

import dataclasses
import math

import pytest
import torch

from gnnrl_lightning.candidates.short_finetune import ShortFinetune
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.evaluation.result import best_of
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.choosing import choose, files_of
from gnnrl_lightning.job.delivery import deliver
from gnnrl_lightning.job.finals import FINALIST, with_finals
from gnnrl_lightning.job.searching import search
from gnnrl_lightning.job.trained import train
from gnnrl_lightning.objective.protocol import WORST
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.search.finals import ELIGIBLE
from gnnrl_lightning.training.options import TrainingOptions
from tests.support.options import options_of
from tests.support.two_hidden import two_hidden_task


@pytest.fixture
def task(monkeypatch):
    return two_hidden_task(monkeypatch)


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path, "run")


def trained_of(task, folder, **finals):
    training = {"pretraining": TrainingOptions(epochs=5), "finetuning": TrainingOptions(epochs=1, learning_rate=0.02)}
    options = options_of(evaluations=16, calibration_examples=64, finals=finals, **training)
    return train(check(task, Budget(macs=0.5), options), folder)


def test_finalists_are_trained_and_the_best_of_them_is_delivered(task, folder, monkeypatch):
    """Their journal spares them the training the second time."""
    assert task.data.batch_size == 64
    finals = {"candidates": 3, "steps": 20}
    found = choose(search(trained_of(task, folder, **finals), "random", folder), files_of(folder))
    kept = len({item.widths for item in found.history})
    count = min(3, math.ceil(ELIGIBLE * kept))
    assert found.finals is not None and count > 1
    trained = found.finals.trained
    assert [item.proposer for item in trained] == [FINALIST] * count
    assert len({item.widths for item in trained}) == count
    assert trained[0].widths == best_of(found.history).widths
    assert found.best.widths in {item.widths for item in trained}
    assert found.best in found.history  # as it was scored in the search
    assert {item.examples for item in trained} == {287 + len(task.data.train) + 3 * 20 * 64}  # of the last repair, too
    before = {item.widths: item.scores["cross_entropy"] for item in found.history}
    assert all(item.scores["cross_entropy"] != before[item.widths] for item in trained)
    lines = folder.finals.read_text().splitlines()
    monkeypatch.setattr(ShortFinetune, "__call__", lambda *_: pytest.fail("trained again"))
    again = search(trained_of(task, folder, **finals), "random", folder)
    assert (
        choose(again, files_of(folder)).best.widths == found.best.widths
        and folder.finals.read_text().splitlines() == lines
    )
    result = deliver(again, folder).figures
    assert result["pruned"]["widths"] == list(found.best.widths)
    record = result["search"]["finals"]
    assert [row["widths"] for row in record["trained"]] == [list(item.widths) for item in trained]
    assert record["examples"] == sum(item.examples for item in trained) and record["seconds"] > 0


@pytest.mark.parametrize("unit", [1.0, 1e9])
def test_finalists_may_have_merits_of_any_size(task, folder, unit):
    trained = trained_of(task, folder, candidates=1, steps=1)
    found = search(trained, "uniform", folder)
    best = dataclasses.replace(found.best, merit=tuple(-unit for _ in found.best.merit))
    chosen = with_finals(dataclasses.replace(found, history=(best,), best=best))
    assert [item.widths for item in chosen.finals.trained] == [best.widths]


@pytest.mark.parametrize("merit", [-math.inf, -WORST])
def test_candidates_without_a_score_are_not_trained(task, folder, merit):
    """Outputs that are not numbers: there is nothing to choose from."""
    trained = trained_of(task, folder, candidates=2)
    found = search(trained, "uniform", folder)
    broken = dataclasses.replace(found.best, merit=(merit, merit))
    with pytest.warns(UserWarning, match="no finalist could be trained"):
        chosen = with_finals(dataclasses.replace(found, history=(broken,), best=broken))
    assert chosen.best is broken and chosen.finals.trained == ()


def test_finalists_that_cannot_be_trained_leave_the_choice_to_the_search(task, folder, monkeypatch):
    def broken(finetune, network):
        torch.nn.init.constant_(network[1].weight, math.nan)

    trained = trained_of(task, folder, candidates=2)
    monkeypatch.setattr(ShortFinetune, "__call__", broken)
    with pytest.warns(UserWarning, match="no finalist could be trained: the best evaluation is delivered"):
        found = choose(search(trained, "random", folder), files_of(folder))
    assert found.best.widths == best_of(found.history).widths and len(found.finals.trained) == 2
