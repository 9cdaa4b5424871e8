"""The fastest of the candidates that accuracy cannot tell apart; the machine is a table here."""

import json
from dataclasses import replace

import pytest
import torch

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.job import fastest
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.delivery import deliver, search_figures
from gnnrl_lightning.job.fastest import with_fastest
from gnnrl_lightning.job.job import Runtime
from gnnrl_lightning.job.searching import search
from gnnrl_lightning.job.trained import train
from gnnrl_lightning.report.costs import alike_line
from gnnrl_lightning.rl.environments import AGENT
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.speed.options import LatencyOptions
from gnnrl_lightning.training.options import TrainingOptions
from tests.support.fake_timer import FakeTimer, hidden, network_ms
from tests.support.options import options_of
from tests.support.two_hidden import TwoHidden, two_hidden_task

COUNT = 5


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def searched_of(monkeypatch, folder, epochs=1, count=COUNT, **budget):
    training = {"pretraining": TrainingOptions(epochs=3), "finetuning": TrainingOptions(epochs=epochs)}
    options = options_of(delivery={"fastest_of": count}, evaluations=40, calibration_examples=32, **training)
    options = replace(options, latency=LatencyOptions(cache=None))  # the times are not those of this machine
    task = two_hidden_task(monkeypatch)
    checked = check(task, Budget(**(budget or {"macs": 0.4})), options, Runtime(timer=FakeTimer()), folder)
    return search(train(checked, folder), "random", folder)


def milliseconds(widths):
    network = TwoHidden()
    network[1], network[3] = torch.nn.Linear(64, widths[0]), torch.nn.Linear(widths[0], widths[1])
    network[5] = torch.nn.Linear(widths[1], 10)
    return network_ms(network)


def ranked(searched):
    distinct = {item.widths: item for item in searched.history if not item.dropped}
    return sorted(distinct.values(), key=lambda item: item.merit, reverse=True)


def paced(searched, monkeypatch, times):
    """The best candidates of a search with given times; returns those that are scored, in this order."""
    candidates, scored = ranked(searched)[: len(times)], []
    by_widths = {item.widths: time for item, time in zip(candidates, times, strict=True)}
    timer, task = searched.trained.job.runtime.timer, searched.trained.job.task
    monkeypatch.setattr(timer, "networks", lambda networks: [by_widths[hidden(network)] for network in networks])

    class Task:
        goal, data = task.goal, task.data

        @staticmethod
        def scored(network, examples):
            scored.append(hidden(network))
            return task.scored(network, examples)

    job = replace(searched.trained.job, task=Task)
    return replace(searched, trained=replace(searched.trained, job=job)), [item.widths for item in candidates], scored


def test_faster_candidates_are_scored_until_one_is_as_good(monkeypatch, folder):
    """Times in the order of their merit; the third one, the fastest, is worse, and 1 % faster is not faster."""
    searched, widths, scored = paced(searched_of(monkeypatch, folder), monkeypatch, [5.0, 4.95, 1.0, 3.0, 4.0])
    verdicts = iter([True, False])
    monkeypatch.setattr(fastest, "worse", lambda task, start, end: next(verdicts))
    found = with_fastest(searched)
    assert scored == [widths[0], widths[2], widths[3]]
    assert found.best.widths == widths[3]
    assert [each["alike"] for each in found.alike] == [True, None, False, True, None]
    assert [each["milliseconds"] for each in found.alike] == [5.0, 4.95, 1.0, 3.0, 4.0]
    assert [tuple(each["widths"]) for each in found.alike if "top1" in each] == [widths[0], widths[2], widths[3]]
    assert alike_line({"search": {"alike": found.alike}}) == (
        "delivered is the fastest of 5 candidates that is as good as the best one on the holdout: 3 ms before "
        "fine-tuning, the best one 5 ms; 1 faster one is worse"
    )


def test_if_none_is_faster_the_best_one_is_delivered_and_nothing_is_scored(monkeypatch, folder):
    searched, widths, scored = paced(searched_of(monkeypatch, folder), monkeypatch, [1.0, 0.99, 2.0])
    found = with_fastest(replace(searched, history=tuple(ranked(searched)[:3])))
    assert found.best.widths == widths[0] and not scored
    assert alike_line({"search": {"alike": found.alike}}) is None


def test_the_choice_is_the_fastest_and_is_reported(monkeypatch, folder):
    monkeypatch.setattr(fastest, "worse", lambda task, start, end: False)
    searched = searched_of(monkeypatch, folder)
    times = {item.widths: milliseconds(item.widths) for item in ranked(searched)[:COUNT]}
    delivered = deliver(searched, folder)
    widths = tuple(delivered.figures["pruned"]["widths"])
    assert times[widths] == min(times.values()) < times[searched.best.widths]
    alike = delivered.figures["search"]["alike"]
    assert [tuple(each["widths"]) for each in alike] == list(times)
    assert f"the fastest of {COUNT} candidates that is as good as the best one" in str(delivered)


def test_the_agents_own_best_is_the_one_of_its_that_is_delivered(monkeypatch, folder):
    """The best one by the reward, which may be another figure, has a worse primary figure here."""
    searched = searched_of(monkeypatch, folder)
    first, second = (
        replace(item, proposer=AGENT, scores={**item.scores, "top1": top1})
        for item, top1 in zip(ranked(searched), (91.0, 92.0), strict=False)
    )
    chosen = replace(searched, history=(first, second), best=second)
    assert search_figures(chosen)["agent_best"] == 92
    other = replace(second, proposer="greedy")
    assert search_figures(replace(chosen, history=(first, other), best=other))["agent_best"] == 91


def test_a_candidate_that_is_worse_by_more_than_chance_is_not_chosen(monkeypatch, folder):
    """Of a network that guesses, against one that does not, the paired test is sure."""
    searched = searched_of(monkeypatch, folder)
    guess = replace(searched.best, widths=(1, 1), merit=(searched.best.merit[0] - 1, *searched.best.merit[1:]))
    chosen = with_fastest(replace(searched, history=(searched.best, guess)))
    assert chosen.best == searched.best
    assert [each["alike"] for each in chosen.alike] == [True, False]


def test_a_resumed_run_keeps_the_choice(monkeypatch, folder):
    monkeypatch.setattr(fastest, "worse", lambda task, start, end: False)
    searched = searched_of(monkeypatch, folder)
    folder.checkpoints.mkdir(exist_ok=True)
    first = with_fastest(searched, folder.fastest)
    timer = searched.trained.job.runtime.timer
    timer.surprise, before = lambda widths: 5.0 if widths == first.best.widths else 1.0, timer.networks_measured
    assert with_fastest(searched, folder.fastest).best == first.best and timer.networks_measured == before
    assert json.loads(folder.fastest.read_text())["candidates"] == [dict(each) for each in first.alike]
    assert with_fastest(searched).best != first.best


@pytest.mark.parametrize("changed", [{"epochs": 0}, {"count": 0}, {"count": 1}, {"latency": 0.6}])
def test_where_the_best_candidate_is_delivered(monkeypatch, folder, changed):
    """Without fine-tuning, without candidates to compare, and where the budget limits the latency."""
    searched = searched_of(monkeypatch, folder, **changed)
    measured = searched.trained.job.runtime.timer.networks_measured
    assert with_fastest(searched) is searched
    assert searched.trained.job.runtime.timer.networks_measured == measured


def test_after_finals_their_winner_is_delivered(monkeypatch, folder):
    searched = replace(searched_of(monkeypatch, folder), finals=object())
    assert with_fastest(searched) is searched
