"""A budget of latency in a job; the machine is a table here."""

import json
from dataclasses import replace

import pytest
import torch

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.result import within
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.delivery import deliver
from gnnrl_lightning.job.job import Runtime
from gnnrl_lightning.job.latency_check import BEST, ROUNDS, TOLERANCE, with_latency_checked
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.job.searched import Finalists
from gnnrl_lightning.job.searching import search
from gnnrl_lightning.job.trained import train
from gnnrl_lightning.runs.folder import RunFolder
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


def searched_of(monkeypatch, folder, timer, budget=None, method="random", evaluations=12):
    options = Options(
        search=SearchOptions(evaluations=evaluations, sensitivity="outputs"),
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
    checks = result["search"]["latency_checks"]
    assert all(check["met"] and check["measured"] == pytest.approx(check["predicted"]) for check in checks)
    assert checks[0]["widths"] == list(searched.best.widths)
    found = result["latency"]
    assert found["limit"] == pytest.approx(SHARE * truth(24, 16)) and found["exceeds_by"] <= 0
    assert found["mean_error"] < 1e-6 and found["batch_size"] == 4 and found["threads"] == 1
    assert "latency: at most" in str(delivered)
    for name, widths in {"dense": (24, 16), "pruned": searched.best.widths}.items():
        layers = [layer["latency_ms"][name] for layer in result["layers"]]
        assert sum(layers) + result["other_latency_ms"][name] == pytest.approx(truth(*widths))
        assert all(time > 0 for time in layers)


def checked_with(searched, surprise, folder=None):
    """The choice on a machine on which networks take longer, or less long, than predicted."""
    searched.trained.job.runtime.timer.surprise = surprise
    return with_latency_checked(searched, None if folder is None else folder.latency_check)


def merit_of(searched, widths):
    return searched.trained.evaluator()(torch.tensor(widths), "test").merit


def test_the_best_candidates_are_measured_and_the_best_one_within_the_limit_is_chosen(monkeypatch, folder):
    """What the search prefers takes a fifth longer than predicted, narrowed or not; all else does not."""
    searched = searched_of(monkeypatch, folder, FakeTimer())
    first = searched.best.widths[0]
    chosen = checked_with(searched, lambda widths: 1.2 if widths[0] == first else 1.0)
    checks = chosen.latency_checks[:BEST]
    ranked = sorted({item.widths: item for item in searched.history}.values(), key=lambda item: item.merit)
    assert [tuple(check["widths"]) for check in checks] == [item.widths for item in ranked[::-1][:BEST]]
    assert [check["met"] for check in checks] == [check["widths"][0] != first for check in checks]
    assert chosen.best.widths != searched.best.widths and not checks[0]["met"]
    met = [check["widths"] for check in chosen.latency_checks if check["met"]]
    assert list(chosen.best.widths) in met
    assert chosen.best.merit == max(merit_of(searched, widths) for widths in met)


def test_a_candidate_that_misses_the_limit_is_narrowed_by_as_much(monkeypatch, folder):
    searched = searched_of(monkeypatch, folder, FakeTimer())
    chosen = checked_with(searched, lambda widths: 1.1 if widths != (24, 16) else 1.0)
    missed, met = ([check for check in chosen.latency_checks if check["met"] is wanted] for wanted in (False, True))
    assert len(missed) == BEST and missed[0]["widths"] == list(searched.best.widths) and met
    assert all(check["measured"] == pytest.approx(1.1 * check["predicted"], rel=1e-6) for check in missed + met)
    share = truth(*chosen.best.widths) * 1.1 / truth(24, 16)
    assert 0.9 * SHARE < share <= SHARE * (1 + TOLERANCE)
    limits = chosen.trained.job.limits
    measured = next(check["measured"] for check in met if tuple(check["widths"]) == chosen.best.widths)
    assert limits.costs(torch.tensor(chosen.best.widths))["latency"] == pytest.approx(measured, rel=0.03)


def test_a_search_whose_best_candidates_miss_the_limit_goes_on_with_a_smaller_one(monkeypatch, folder):
    searched = searched_of(monkeypatch, folder, FakeTimer(), method="surrogate", evaluations=40)
    chosen = checked_with(searched, lambda widths: 1.1 if widths != (24, 16) else 1.0)
    first, again = chosen.latency_checks[:BEST], chosen.latency_checks[BEST : 2 * BEST]
    assert not any(check["met"] for check in first) and all(check["met"] for check in again)
    limit = SHARE * truth(24, 16)
    assert all(0.9 * limit < check["measured"] <= limit * (1 + 1e-6) for check in again)
    known = {item.widths for item in searched.history}
    assert all(tuple(check["widths"]) not in known for check in again)
    assert chosen.best.widths in {tuple(check["widths"]) for check in again}
    # As good as the best of all networks that are as fast.
    pairs = [(a, b) for a in range(1, 25) for b in range(1, 17) if 1.1 * truth(a, b) <= limit]
    merits = [merit_of(searched, widths) for widths in pairs if truth(*widths) > 0.85 * limit / 1.1]
    assert sum(merit > chosen.best.merit for merit in merits) <= 0.1 * len(merits)


def test_a_candidate_with_time_to_spare_is_widened(monkeypatch, folder):
    searched = searched_of(monkeypatch, folder, FakeTimer())
    chosen = checked_with(searched, lambda widths: 0.8 if widths != (24, 16) else 1.0)
    assert all(check["met"] for check in chosen.latency_checks[:BEST])
    assert truth(*chosen.best.widths) > SHARE * truth(24, 16) > 0.8 * truth(*chosen.best.widths) / (1 + TOLERANCE)
    assert chosen.best.merit > searched.best.merit and chosen.best.proposer == "latency"


def test_after_finals_their_winner_alone_is_measured(monkeypatch, folder):
    searched = searched_of(monkeypatch, folder, FakeTimer())
    winner = min(searched.history, key=lambda item: item.merit)
    played = replace(searched, best=winner, finals=Finalists((winner,), 1.0))
    (check,) = with_latency_checked(played).latency_checks
    assert tuple(check["widths"]) == winner.widths


def test_the_choice_is_kept_for_a_run_that_is_resumed(monkeypatch, folder):
    searched = searched_of(monkeypatch, folder, FakeTimer())
    first = checked_with(searched, lambda widths: 1.2, folder)
    timer = FakeTimer()
    resumed = searched_of(monkeypatch, folder, timer)
    again = checked_with(resumed, lambda widths: 9.0, folder)
    assert timer.cells == timer.networks_measured == 0  # all measurements are those of the folder
    assert again.best == first.best and list(again.latency_checks) == list(first.latency_checks)
    assert again.trained.job.limits.limits == first.trained.job.limits.limits
    assert again.trained.job.latency.model.correction == first.trained.job.latency.model.correction


def test_what_a_method_has_found_is_judged_by_the_limit_of_its_search(monkeypatch, folder):
    """All networks take 2 % longer than predicted: by the corrected model, no candidate at the limit would meet it."""
    searched = searched_of(monkeypatch, folder, FakeTimer())
    found = checked_with(searched, lambda widths: 1.0 if widths == (24, 16) else 1.02)
    assert not any(within(found.trained.job.limits, item) for item in searched.ranked()[:1])
    assert found.best_by("random") == searched.best_by("random") is not None


def test_a_limit_that_nothing_meets_is_warned_of(monkeypatch, folder):
    """The narrower a network, the longer it takes."""
    searched = searched_of(monkeypatch, folder, FakeTimer())
    with pytest.warns(UserWarning, match=r"budget.latency is missed: 60.0% of the dense network's was asked for"):
        chosen = checked_with(searched, lambda widths: (40 / sum(widths)) ** 3)
    checks = chosen.latency_checks
    assert BEST < len(checks) <= BEST * (1 + ROUNDS) and not any(check["met"] for check in checks)
    assert list(chosen.best.widths) == min(checks, key=lambda check: check["measured"])["widths"]


@pytest.mark.parametrize(("exceeds", "met"), [(TOLERANCE - 0.002, True), (TOLERANCE + 0.002, False)])
def test_absolute_limits_are_compared_with_milliseconds(monkeypatch, folder, exceeds, met):
    limit = 0.6 * truth(24, 16)
    searched = searched_of(monkeypatch, folder, FakeTimer(), Budget(latency=f"{limit} ms"))
    factor = (1 + exceeds) * limit / truth(*searched.best.widths)
    checks = checked_with(searched, lambda widths: factor if widths == searched.best.widths else 1.0).latency_checks
    assert checks[0]["met"] is met


def test_jobs_without_a_limit_on_latency_measure_none(monkeypatch, folder):
    timer = FakeTimer()
    searched = searched_of(monkeypatch, folder, timer, Budget(macs=0.5))
    assert (
        timer.cells == timer.networks_measured == 0 and with_latency_checked(searched, folder.latency_check) is searched
    )
    assert not folder.latency.exists()


@pytest.mark.parametrize("budget", [Budget(macs=0.5), Budget(latency=SHARE), Budget(macs=0.5, channel_multiple="auto")])
def test_a_back_end_that_cannot_run_the_network_is_refused_before_anything_is_trained(monkeypatch, budget):
    def refuse(network, inputs, key):
        raise UserError("latency.backend cannot run the network")

    monkeypatch.setitem(BACKENDS._rows, "refusing", Backend(lambda threads: refuse, keeps=True))
    options = Options(latency=LatencyOptions(backend="refusing", cache=None))
    with pytest.raises(UserError, match=r"^latency.backend cannot run the network$"):
        check(two_hidden_task(monkeypatch), budget, options)
