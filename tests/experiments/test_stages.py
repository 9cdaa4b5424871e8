"""The benchmark of cuts in stages: equal epochs, and nothing is repeated."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.workplace import working_in

FILE = Path(__file__).parents[2] / "experiments" / "benchmarks" / "stages.py"
SMALL = {
    "stages": {"shares": []},
    "search": {"evaluations": 23},
    "model": {"proxy_warmup": 1, "proxy_between": 0, "proxy_episodes": 8},
    "pretraining": {"epochs": 1},
    "finetuning": {"epochs": 1},
    "delivery": {"formats": ["weights"]},
    "latency": {"batch_size": 4},
}


def benchmark():
    spec = importlib.util.spec_from_file_location("stages_benchmark", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("epochs", "first", "last"), [(10, "5", "5"), (5, "2", "3")])
def test_plans_have_the_same_epochs_in_total(epochs, first, last):
    one, two = benchmark().plans(0.16, epochs)
    assert one == ("one", ["--stages.shares", "[]", "--stages.epochs", "null", "--finetuning.epochs", str(epochs)])
    assert two[1] == ["--stages.shares", "[0.40]", "--stages.epochs", first, "--finetuning.epochs", last]


@pytest.mark.slow
def test_a_second_call_repeats_nothing_and_writes_the_same(tmp_path, monkeypatch):
    with working_in(tmp_path) as folder:
        (folder / "tiny.yaml").write_text(yaml.safe_dump(SMALL))
        own = ["--json", "found.json", "--config", "small.yaml", "--budgets", "0.3", "--epochs", "2"]
        more = ["--", "--config", "rounds.yaml", "--config", "tiny.yaml", "--run.threads", "1"]
        monkeypatch.setattr(sys, "argv", ["stages.py", *own, *more])
        module = benchmark()
        module.main()
        text = (folder / "found.json").read_text()
        monkeypatch.setattr(module, "command", lambda arguments: pytest.fail("repeated"))
        module.main()
        assert (folder / "found.json").read_text() == text
    one, two = json.loads(text)["rows"]
    assert [row["plan"] for row in (one, two)] == ["one", "two"] and one["stages"] == []
    assert "uniform" in one and "uniform" not in two and len(two["stages"]) == 2
    assert [len(stage["top1_search_epochs"]) for stage in two["stages"]] == [1, 1]
    assert len(one["pruned"]["top1_search_epochs"]) == 2 and one["test_examples"] == 360
    assert all(row["pruned"]["macs_ratio"] <= 0.3 for row in (one, two))
