"""A budget of latency in a job; the machine is a table here."""

import json

import pytest
import torch

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.delivery import deliver
from gnnrl_lightning.job.job import Runtime
from gnnrl_lightning.job.latency_check import MOST_CHECKS, TOLERANCE, with_latency_checked
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.job.runs import RunFolder
from gnnrl_lightning.job.searching import search
from gnnrl_lightning.job.trained import train
from gnnrl_lightning.search.options import SearchOptions
from gnnrl_lightning.speed.backend import Backend
from gnnrl_lightning.speed.backends import BACKENDS
from gnnrl_lightning.speed.options import LatencyOptions
from gnnrl_lightning.training.options import TrainingOptions
from tests.support.fake_timer import FakeTimer, linear_ms
from tests.support.two_hidden import two_hidden_task

SHARE = 0.6


def truth(a, b):
    return 0.05 + 1.1 * (linear_ms(64, a) + linear_ms(a, b) + linear_ms(b, 10))


def searched_of(monkeypatch, folder, timer, budget=None, method="random"):
    options = Options(
        search=SearchOptions(evaluations=12, sensitivity="outputs"),
        latency=LatencyOptions(batch_size=4, threads=1, cache=None),
        pretraining=TrainingOptions(epochs=1),
        finetuning=TrainingOptions(epochs=1),
    )
    task = two_hidden_task(monkeypatch)
    checked = check(task, budget or Budget(latency=SHARE), options, Runtime(timer=timer), folder)
    return search(train(checked, folder), method, folder)


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def test_a_winner_that_meets_the_limit_is_delivered(monkeypatch, folder):
    timer = FakeTimer()
    searched = searched_of(monkeypatch, folder, timer)
    assert all(truth(*item.widths) <= SHARE * truth(24, 16) * (1 + 1e-6) for item in searched.history)
    delivered = deliver(searched, folder)
    row, result = delivered.figures["pruned"], json.loads(folder.result.read_text())
    assert row["widths"] == list(searched.best.widths)
    assert row["latency"] == pytest.approx(truth(*searched.best.widths))
    assert row["latency_ratio"] == pytest.approx(truth(*searched.best.widths) / truth(24, 16))
    assert row["latency_ms"] == pytest.approx(truth(*searched.best.widths))
    (checked,) = result["search"]["latency_checks"]
    assert checked["met"] and checked["measured"] == pytest.approx(checked["predicted"])
    found = result["latency"]
    assert found["limit"] == pytest.approx(SHARE * truth(24, 16)) and found["exceeds_by"] <= 0
    assert found["mean_error"] < 1e-6 and found["batch_size"] == 4 and found["threads"] == 1
    assert "latency: at most" in str(delivered)


def test_a_winner_that_misses_the_limit_makes_way_for_the_next(monkeypatch, folder):
    """The winner takes a tenth longer than predicted; what is narrower than it does not."""
    timer = FakeTimer(surprises=[1.1 / (1 - 0.005)])
    searched = searched_of(monkeypatch, folder, timer)
    chosen = with_latency_checked(searched, folder.latency_check)
    missed, met = chosen.latency_checks
    assert missed["widths"] == list(searched.best.widths) and not missed["met"]
    assert met["met"] and met["widths"] == list(chosen.best.widths) != missed["widths"]
    limits = chosen.trained.job.limits
    assert bool(limits.met(torch.tensor(chosen.best.widths)))
    # By the corrected model the first winner is too slow, and it is the best of those that are not.
    assert not bool(limits.met(torch.tensor(searched.best.widths)))
    fitting = [item for item in searched.history if bool(limits.met(torch.tensor(item.widths))) and not item.dropped]
    assert all(chosen.best.merit >= item.merit for item in fitting)
    assert limits.costs(torch.tensor(missed["widths"]))["latency"] == pytest.approx(missed["measured"], rel=0.03)


def test_the_choice_is_kept_for_a_run_that_is_resumed(monkeypatch, folder):
    searched = searched_of(monkeypatch, folder, FakeTimer(surprises=[1.2]))
    first = with_latency_checked(searched, folder.latency_check)
    timer = FakeTimer(surprises=[9.0])
    again = with_latency_checked(searched_of(monkeypatch, folder, timer), folder.latency_check)
    assert timer.cells == timer.pairs == 0  # all measurements are those of the folder
    assert again.best == first.best and list(again.latency_checks) == list(first.latency_checks)
    assert again.trained.job.limits.limits == first.trained.job.limits.limits


def test_a_limit_that_nothing_meets_is_warned_of(monkeypatch, folder):
    timer = FakeTimer(surprises=[1.2, 3.0, 30.0, 300.0, 3000.0])
    searched = searched_of(monkeypatch, folder, timer)
    with pytest.warns(UserWarning, match=r"budget.latency is missed: 60.0% of the dense network's was asked for"):
        chosen = with_latency_checked(searched, folder.latency_check)
    assert len(chosen.latency_checks) == 2 and not any(item["met"] for item in chosen.latency_checks)
    nearest = min(chosen.latency_checks, key=lambda item: item["measured"])
    assert list(chosen.best.widths) == nearest["widths"]


def test_a_run_resumed_after_the_last_check_has_the_same_model(monkeypatch, folder):
    """Every candidate takes longer than what is known of the others."""
    surprises = [1.1, 1.2, 1.3, 1.4, 1.5]
    with pytest.warns(UserWarning, match=r"budget.latency is missed"):
        searched = searched_of(monkeypatch, folder, FakeTimer(surprises=surprises))
        first = with_latency_checked(searched, folder.latency_check)
    assert len(first.latency_checks) == MOST_CHECKS
    again = with_latency_checked(searched_of(monkeypatch, folder, FakeTimer()), folder.latency_check)
    assert again.trained.job.latency.model.correction == first.trained.job.latency.model.correction


@pytest.mark.parametrize(("exceeds", "met"), [(TOLERANCE - 0.002, True), (TOLERANCE + 0.002, False)])
def test_absolute_limits_are_compared_with_milliseconds(monkeypatch, folder, exceeds, met):
    limit = 0.6 * truth(24, 16)
    searched = searched_of(monkeypatch, folder, FakeTimer(), Budget(latency=f"{limit} ms"))
    factor = (1 + exceeds) * limit / truth(*searched.best.widths)
    searched.trained.job.runtime.timer.surprises = [factor]
    checks = with_latency_checked(searched, folder.latency_check).latency_checks
    assert checks[0]["met"] is met


def test_jobs_without_a_limit_on_latency_measure_none(monkeypatch, folder):
    timer = FakeTimer()
    searched = searched_of(monkeypatch, folder, timer, Budget(macs=0.5))
    assert timer.cells == timer.pairs == 0 and with_latency_checked(searched, folder.latency_check) is searched
    assert not folder.latency.exists()


@pytest.mark.parametrize("budget", [Budget(macs=0.5), Budget(latency=SHARE), Budget(macs=0.5, channel_multiple="auto")])
def test_a_back_end_that_cannot_run_the_network_is_refused_before_anything_is_trained(monkeypatch, budget):
    def refuse(network, inputs, key):
        raise UserError("latency.backend cannot run the network")

    monkeypatch.setitem(BACKENDS._rows, "refusing", Backend(lambda threads: refuse, keeps=True))
    options = Options(latency=LatencyOptions(backend="refusing", cache=None))
    with pytest.raises(UserError, match=r"^latency.backend cannot run the network$"):
        check(two_hidden_task(monkeypatch), budget, options)
