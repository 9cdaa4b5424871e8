"""Methods side by side on the digits: halves of the test images, budgets, refusals, fine-tuning."""

import json
import math

import pytest
import torch

from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.compare_options import CompareOptions
from gnnrl_lightning.job.comparison import AgentRow, Comparison
from gnnrl_lightning.job.job import Runtime
from gnnrl_lightning.job.latency_check import TOLERANCE
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.rl.env.options import EpisodeOptions
from gnnrl_lightning.rl.environments import AGENT
from gnnrl_lightning.rl.learners import DDPG, GNNRL
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.search.methods import METHODS, one_shot
from gnnrl_lightning.search.problem import NotApplicable
from gnnrl_lightning.training.options import TrainingOptions
from tests.support.fake_timer import FakeTimer
from tests.support.options import options_of
from tests.support.two_hidden import two_hidden_task


@pytest.fixture
def task(monkeypatch):
    return two_hidden_task(monkeypatch)


def agent_of(seed):
    proxy = {"proxy_warmup": 2, "proxy_between": 1, "proxy_episodes": 8}
    return GNNRL(seed=seed, episodes_per_iteration=3, epochs=1, minibatches=2, **proxy)


def comparison_of(task, options, agents=None, report=lambda row: None, budget=None, timer=None, **given):
    defaults = {
        "evaluations": 14,
        "calibration_examples": 64,
        "repair": "reconstruction",
        "sensitivity": "reconstruction",
        "pretraining": TrainingOptions(epochs=3),
        "finetuning": TrainingOptions(epochs=1, learning_rate=0.02),
    }
    runtime = Runtime(timer=timer or FakeTimer())
    checked = check(task, budget or Budget(macs=0.5), options_of(**defaults | given), runtime)
    agents = agents or {"agent": AgentRow(agent_of, checked.job.options.episode)}
    return Comparison(checked, options, agents, report)


def test_the_whole_comparison(task, tmp_path):
    reported = []
    options = CompareOptions(
        methods=["agent", "uniform", "greedy", "evolution"], seeds=[0, 1], budgets=[0.4, 0.6], test_half="odd"
    )  # fmt: skip
    comparison = comparison_of(task, options, report=reported.append, delivery={"fastest_of": 2})
    folder = RunFolder.create(tmp_path, "run")
    figures = comparison.run(folder)
    assert json.loads(folder.compare.read_text()) == figures
    assert figures["test_examples"] == 180 and figures["rows"] == reported
    runs = [(row["budget"], row["method"], row["seed"]) for row in figures["rows"]]
    assert runs == [
        (budget, method, seed)
        for budget in (0.4, 0.6)
        for method, seed in [
            ("agent", 0), ("uniform", None), ("greedy", None), ("evolution", 0), ("agent", 1), ("evolution", 1),
        ]
    ]  # fmt: skip
    dense = 64 * 24 + 24 * 16 + 16 * 10
    for row in figures["rows"]:
        first, second = row["widths"]
        assert row["macs_ratio"] == (64 * first + first * second + second * 10) / dense <= row["budget"]
        # The moments, which the repair and the sensitivity use, cost one evaluation, for 64 images of 287. After six
        # starting candidates, the agent's 14 evaluations suffice for two iterations of three.
        spent = {"agent": 1 + 6 + 2 * 3, "uniform": 1 + 1, "greedy": 1 + 1, "evolution": 14}
        assert row["evaluations"] == spent[row["method"]]
        assert 0 <= row["top1_test_before"] <= 100 and "top1_test_after" not in row
        assert "alike" not in row  # the best candidate wins, however long it takes
        # A candidate reads only the holdout, once if it is not cached.
        evaluated = (row["examples"] - 64) / 287
        assert evaluated == int(evaluated) and 1 <= evaluated <= row["evaluations"] - 1
    assert {(entry["budget"], entry["method"]) for entry in figures["paired"]} == {
        (budget, method) for budget in (0.4, 0.6) for method in ("uniform", "greedy", "evolution")
    }
    best = {row["method"]: row["top1_search"] for row in figures["rows"] if row["budget"] == 0.4}
    assert best["agent"] >= max(best["uniform"], best["greedy"])


def test_finals_choose_the_winner_of_every_method(task, tmp_path):
    options = CompareOptions(methods=["uniform", "evolution"], seeds=[0])
    folder = RunFolder.create(tmp_path, "run")
    figures = comparison_of(task, options, finals={"candidates": 2, "steps": 10}).run(folder)
    for row in figures["rows"]:
        count = {"uniform": 1, "evolution": 2}[row["method"]]
        assert row["widths"] in [item["widths"] for item in row["finals"]["trained"]]
        assert len(row["finals"]["trained"]) == count and row["finals"]["examples"] > count * 3 * 10 * 64
    stem = "evolution-0.5-seed0"
    assert len(Journal(folder.comparison / f"{stem}.finals.jsonl").read()) == 2
    assert len(Journal(folder.comparison / f"{stem}.jsonl").read()) > 2


def test_ddpg_searches_in_the_same_episodes(task, tmp_path):
    """It pays for its own sensitivity, starts with the same candidates, and spends the rest in whole iterations."""
    options = CompareOptions(methods=["agent", "ddpg"], seeds=[0, 1])
    shared = {"episodes_per_iteration": 3, "proxy_warmup": 2, "proxy_between": 1, "proxy_episodes": 8}
    episode = EpisodeOptions(surrogate=False, reward=None)
    rows = {"agent": AgentRow(agent_of, episode), "ddpg": AgentRow(lambda seed: DDPG(seed=seed, **shared), episode)}
    figures = comparison_of(task, options, rows).run(RunFolder.create(tmp_path, "run"))
    found = {(row["method"], row["seed"]): row for row in figures["rows"]}
    assert {row["evaluations"] for row in found.values()} == {1 + 6 + 2 * 3}
    again = comparison_of(task, CompareOptions(methods=["ddpg"], seeds=[1]), rows)
    (row,) = again.run(RunFolder.create(tmp_path, "again"))["rows"]
    asked = [
        [entry["widths"] for entry in Journal(tmp_path / name / "compare" / "ddpg-0.5-seed1.jsonl").read()]
        for name in ("run", "again")
    ]
    assert asked[0] == asked[1] and row["widths"] == found["ddpg", 1]["widths"]
    other = Journal(tmp_path / "run" / "compare" / "agent-0.5-seed1.jsonl").read()
    assert asked[0][:6] == [entry["widths"] for entry in other[:6]] and len(asked[0]) == len(other)
    assert {(entry["method"], entry["budget"]) for entry in figures["paired"]} == {("ddpg", 0.5)}


def test_repairs_that_read_images_make_evaluations_dearer_and_tables_cheaper(task, tmp_path):
    """Two groups at five widths: a sensitivity of 100 * (1 + 2 * 5) images, and 100 for its moments. Refit
    records 100 more, in evaluations of 287 + 100 where the other has 287."""
    options = CompareOptions(methods=["greedy"], seeds=[0])
    rows = {}
    for repair in ("refit", "reconstruction"):
        comparison = comparison_of(task, options, repair=repair, sensitivity="outputs", calibration_examples=100)
        (rows[repair],) = comparison.run(RunFolder.create(tmp_path, repair))["rows"]
    assert {repair: row["examples"] for repair, row in rows.items()} == {
        "refit": 1300 + 287 + 100,
        "reconstruction": 1200 + 287,
    }
    assert math.ceil(1300 / (287 + 100)) == 4 and math.ceil(1200 / 287) == 5
    assert {repair: row["evaluations"] for repair, row in rows.items()} == {"refit": 4 + 1, "reconstruction": 5 + 1}


@pytest.mark.parametrize(("surrogate", "last"), [(False, 0), (None, 8)])
def test_an_agent_for_all_budgets_wins_with_what_meets_this_one(task, tmp_path, surrogate, last):
    """With a surrogate, the candidates for the budget and for seven others come last."""
    options = CompareOptions(methods=["agent", "uniform"], seeds=[0], budgets=[0.4, 0.6])
    evaluations = 1 + 6 + 3 * 3 + last
    comparison = comparison_of(task, options, evaluations=evaluations, macs_range=(0.3, 0.9), surrogate=surrogate)
    folder = RunFolder.create(tmp_path, "run")
    rows = comparison.run(folder)["rows"]
    for row in rows:
        if row["method"] == "agent":
            journal = Journal(folder.comparison / f"agent-{row['budget']}-seed0.jsonl").read()
            ratios = [entry["macs_ratio"] for entry in journal if entry["proposer"] == AGENT]
            assert max(ratios) <= 0.9 and any(ratio > row["budget"] for ratio in ratios)
            met = [entry for entry in journal if entry["macs_ratio"] <= row["budget"]]
            assert row["top1_search"] == max(entry["scores"]["top1"] for entry in met)
            assert evaluations - last < row["evaluations"] <= evaluations or not last
        assert row["macs_ratio"] <= row["budget"]


def test_winners_are_repaired_on_more_images(task, tmp_path, monkeypatch):
    read = []
    original = Pruner.final

    def final(pruner, calibration, repair):
        read.append(len(calibration))
        return original(pruner, calibration, repair)

    monkeypatch.setattr(Pruner, "final", final)
    options = CompareOptions(methods=["uniform", "greedy"], seeds=[0])
    comparison = comparison_of(task, options, delivery={"calibration_examples": 200})
    figures = comparison.run(RunFolder.create(tmp_path, "run"))
    assert read == [200]
    assert [row["examples"] for row in figures["rows"]] == [64 + 287, 64 + 287]  # what the search spent
    assert figures["options"]["search"]["sensitivity"] == "reconstruction"
    assert figures["options"]["delivery"]["calibration_examples"] == 200


def test_a_finished_run_is_not_run_again(task, tmp_path, monkeypatch):
    options = CompareOptions(methods=["uniform", "evolution"], seeds=[0, 1])
    folder = RunFolder.create(tmp_path, "run")
    first = comparison_of(task, options).run(folder)
    (folder.comparison / "evolution-0.5-seed1.json").unlink()
    ran = []
    again = comparison_of(task, options, report=ran.append)
    monkeypatch.setattr(Task, "train", lambda *_, **__: pytest.fail("trained again"))
    second = again.run(folder)
    assert [(row["method"], row["seed"]) for row in ran] == [("evolution", 1)]
    for figures in (first, second):
        for row in figures["rows"]:
            row.pop("seconds")
    assert first["rows"] == second["rows"]


def test_runs_with_other_settings_are_not_reused(task, tmp_path):
    folder, uniform = RunFolder.create(tmp_path, "run"), CompareOptions(methods=["uniform"], seeds=[0])
    comparison_of(task, uniform).run(folder)
    other = {"agent": AgentRow(lambda seed: GNNRL(seed=seed, epochs=2), options_of().episode)}
    for given, message in (
        ({"options": CompareOptions(methods=["uniform"], finetune=True)}, "finetune is False there, and True here"),
        ({"options": CompareOptions(methods=["uniform"], test_half="odd")}, "test_half is 'all' there, and 'odd' here"),
        ({"evaluations": 15}, "options.search.evaluations is 14 there, and 15 here; give a new folder"),
        ({"budget": Budget(macs=0.5, min_width=2)}, "budget.0.5.min_width is 1 there, and 2 here"),
        ({"agents": other}, "agents.agent.episodes_per_iteration is 3 there, and 4 here"),
    ):
        with pytest.raises(UserError, match=rf"run/compare has a run that has other settings: {message}"):
            comparison_of(task, **{"options": uniform} | given).run(folder)
    more = CompareOptions(methods=["uniform", "greedy"], seeds=[0, 1], budgets=[0.5, 0.4])
    another = {"another": AgentRow(agent_of, EpisodeOptions())}
    assert len(comparison_of(task, more, another).run(folder)["rows"]) == 4
    with pytest.raises(UserError, match=r"agents.another.episode.max_steps is"):
        changed = {"another": AgentRow(agent_of, EpisodeOptions(max_steps=5))}
        comparison_of(task, uniform, agents=changed).run(folder)


def test_the_halves_are_the_even_and_the_odd_test_images(task):
    task.build()
    halves = {
        half: comparison_of(task, CompareOptions(methods=["uniform"], test_half=half)).test
        for half in ("all", "even", "odd")
    }
    test = task.data.test
    assert torch.equal(halves["all"].labels, test.labels)
    assert torch.equal(halves["even"].labels, test.labels[0::2])
    assert torch.equal(halves["odd"].images, test.images[1::2])


def test_a_method_that_cannot_is_listed_with_its_reason(task, tmp_path, monkeypatch):
    def refuse(problem):
        raise NotApplicable("not on a Tuesday")

    monkeypatch.setattr(METHODS, "_rows", dict(METHODS))
    METHODS.register("refuser", one_shot("refuser", refuse))
    options = CompareOptions(methods=["refuser", "uniform", "agent", "greedy"], seeds=[0])
    figures = comparison_of(task, options, evaluations=6, sensitivity=None).run(RunFolder.create(tmp_path, "run"))
    assert [row["method"] for row in figures["rows"]] == ["uniform"] and figures["paired"] == []
    assert {row["method"]: row["refused"] for row in figures["refused"]} == {
        "refuser": "not on a Tuesday",
        "agent": "has 1 evaluations left, an iteration needs 3; raise search.evaluations",
        "greedy": "needs a sensitivity, but none is measured; set search.sensitivity",
    }


def test_an_agent_that_cannot_pay_for_its_table_and_an_iteration_is_refused(task, tmp_path):
    """Its own search may read no table: then it has two evaluations more."""
    poor, rich = EpisodeOptions(sensitivity=False), EpisodeOptions()
    agents = {"agent": AgentRow(agent_of, rich), "no_table": AgentRow(agent_of, poor)}
    options = CompareOptions(methods=["agent", "no_table"], seeds=[0], variants={"no_table": {}})
    figures = comparison_of(task, options, agents, evaluations=9).run(RunFolder.create(tmp_path, "run"))
    assert [(row["method"], row["evaluations"]) for row in figures["rows"]] == [("no_table", 1 + 4 + 3)]
    refused = {row["method"]: row["refused"] for row in figures["refused"]}
    assert refused == {"agent": "has 2 evaluations left, an iteration needs 3; raise search.evaluations"}


def test_winners_are_fine_tuned_alike_with_each_seed(task, tmp_path):
    trained = []
    options = CompareOptions(methods=["uniform", "random"], seeds=[0, 1], finetune=True)
    comparison = comparison_of(
        task, options, finetuning=TrainingOptions(epochs=2, learning_rate=0.1), delivery={"fastest_of": 2}
    )
    original = task.train

    def record(network, given, trainer, teacher=None, checkpoint=None, seed=None):
        trained.append((given, seed))
        original(network, given, trainer, teacher, checkpoint, seed)

    object.__setattr__(task, "train", record)
    figures = comparison.run(RunFolder.create(tmp_path, "run"))
    job = comparison.checked.job.options
    assert trained == [(job.pretraining, None)] + [(job.finetuning, seed) for seed in (0, 0, 1, 1)]
    assert [(row["method"], row["seed"]) for row in figures["rows"]][:2] == [("uniform", 0), ("random", 0)]
    first, second = (row for row in figures["rows"] if row["method"] == "uniform")
    assert first["top1_test_before"] == second["top1_test_before"]
    assert first["top1_test_after"] != second["top1_test_after"]
    assert all(0 <= row["top1_test_after"] <= 100 for row in figures["rows"])
    assert {"top1_test_after"} <= figures["summary"][0].keys()
    assert all("alike" in row for row in figures["rows"] if row["method"] == "random")


def test_a_fine_tuning_that_diverges_does_not_end_the_comparison(task, tmp_path):
    """It is undone, as in a run of `fit`: the row has the network before it."""
    options = CompareOptions(methods=["uniform"], seeds=[0], finetune=True)
    comparison = comparison_of(task, options, finetuning=TrainingOptions(epochs=1, learning_rate=1e9))
    with pytest.warns(UserWarning, match="uniform pruned network: the training diverged"):
        (row,) = comparison.run(RunFolder.create(tmp_path, "run"))["rows"]
    assert row["top1_test_after"] == row["top1_test_before"]


def test_budgets_on_other_metrics_and_with_other_widths(task, tmp_path):
    budgets = [0.4, {"params": "60%"}, {"macs": 0.4, "channel_multiple": 4}]
    options = CompareOptions(methods=["uniform", "greedy"], seeds=[0], budgets=budgets)
    folder = RunFolder.create(tmp_path, "run")
    comparison = comparison_of(task, options)
    figures = comparison.run(folder)
    labels = [0.4, "params=60%", "macs=0.4,channel_multiple=4"]
    assert [row["budget"] for row in figures["rows"]] == [label for label in labels for _ in range(2)]
    for row in figures["rows"]:
        if row["budget"] == "params=60%":
            assert row["params_ratio"] <= 0.6 and row["macs_ratio"] > 0.4  # the limit on MACs is replaced
        else:
            assert row["macs_ratio"] <= 0.4
        multiple = 4 if row["budget"] == labels[2] else 1
        assert row["channel_multiple"] == multiple and all(width % multiple == 0 for width in row["widths"])
        assert row["latency_ms"] > 0 and 0 < row["latency_measured_ratio"] < 2 and row["latency_checks"] == []
    assert comparison_of(task, options).run(folder)["rows"] == figures["rows"]  # found by their labels


def test_winners_are_narrowed_until_they_meet_the_latency(task, tmp_path, monkeypatch):
    """Networks take a fifth longer than predicted."""
    monkeypatch.setenv("HOME", str(tmp_path))  # the default cache may have operators that were really measured
    budgets, timer = [{"latency": 0.6}, {"latency": 0.7}, {"macs": 0.5}], FakeTimer()
    options = CompareOptions(methods=["evolution"], seeds=[0], budgets=budgets)
    comparison = comparison_of(task, options, budget=Budget(latency=0.5), timer=timer)
    dense = tuple(comparison.checked.job.graph.widths.tolist())
    timer.surprise = lambda widths: 1.0 if widths == dense else 1.2
    *limited, unlimited = comparison.run(RunFolder.create(tmp_path, "run"))["rows"]
    for row, share in zip(limited, (0.6, 0.7), strict=True):
        checks = {tuple(check["widths"]): check["met"] for check in row["latency_checks"]}
        assert checks[tuple(row["widths"])] and not all(checks.values())
        assert row["latency_measured_ratio"] <= share * (1 + TOLERANCE)
    assert unlimited["latency_checks"] == [] and unlimited["macs_ratio"] <= 0.5 and unlimited["latency_ms"] > 0


def test_what_cannot_be_compared_is_refused(task):
    with pytest.raises(UserError, match=r"compare.budgets is \[1.0\]: expected shares of the dense MACs below 1"):
        CompareOptions(budgets=[1.0])
    with pytest.raises(UserError, match=r"compare.budgets is \[{'macs': 0.5}, {'macs': 0.5}\]: expected each once"):
        CompareOptions(budgets=[{"macs": 0.5}, {"macs": 0.5}])
    with pytest.raises(UserError, match=r"budget is 'mac' \(did you mean macs\?\)"):
        comparison_of(task, CompareOptions(budgets=[{"mac": 0.5}]))
    with pytest.raises(UserError, match="the latency of this network has not been measured"):
        comparison_of(task, CompareOptions(budgets=[{"latency": 0.5}]))
    with pytest.raises(UserError, match=r"budget.macs is 0.001"):
        comparison_of(task, CompareOptions(budgets=[0.001]))
    with pytest.raises(UserError, match=r"compare.methods has slow, but no agent of that name was given"):
        comparison_of(task, CompareOptions(methods=["slow"], variants={"slow": {}}))
    with pytest.raises(UserError, match=r"compare.methods has nothing"):
        CompareOptions(methods=[])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seeds": []}, r"compare.seeds is \[\]: expected one seed, at least"),
        ({"seeds": [-1]}, "a seed in compare.seeds is -1: expected a whole number from 0"),
        ({"seeds": [0.5]}, "a seed in compare.seeds is 0.5: expected a whole number from 0"),
        ({"seeds": ["a"]}, "a seed in compare.seeds is 'a': expected a whole number from 0"),
        ({"seeds": 3}, "compare.seeds is 3: expected a list"),
        ({"methods": "greedy"}, "compare.methods is 'greedy': expected a list"),
        ({"budgets": 0.5}, "compare.budgets is 0.5: expected a list"),
        ({"budgets": ["50%"]}, r"compare.budgets is \['50%'\]: expected shares of the dense MACs below 1"),
        ({"finetune": "yes"}, "compare.finetune is 'yes': expected true or false"),
    ],
)
def test_what_the_command_line_refuses_is_refused_in_python(given, message):
    with pytest.raises(UserError, match=message):
        CompareOptions(**given)
