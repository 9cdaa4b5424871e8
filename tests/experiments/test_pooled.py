"""Differences that are pooled over comparisons."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmarks" / "pooled.py"


@pytest.fixture(scope="module")
def pooled():
    spec = importlib.util.spec_from_file_location("pooled", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def comparison(network, **methods):
    """Of one budget; a list has the values of seeds from 0 on, a number that of a method without one."""
    rows = []
    for method, values in methods.items():
        given = enumerate(values) if isinstance(values, list) else [(None, values)]
        rows += [{"method": method, "budget": 0.5, "seed": seed, "top1_test_before": value} for seed, value in given]
    return {"network": network, "rows": rows}


def test_pairs_have_the_same_network_budget_and_seed(pooled):
    first = comparison("a", agent=[90.0, 91.0], once=89.0, random=[88.0, 90.0])
    second = comparison("b", agent=[80.0], random=[79.5], alone=[1.0])
    found = pooled.differences([first, second])
    assert set(found) == {"once", "random", "alone"}
    assert (found["once"].n, found["once"].mean) == (2, 1.5)
    assert (found["random"].n, found["random"].mean) == (3, pytest.approx((2 + 1 + 0.5) / 3))
    assert found["alone"].n == 1 and found["alone"].low is None


def test_the_agent_of_one_file_against_the_methods_of_another(pooled, tmp_path, capsys, monkeypatch):
    few, many = comparison("a", agent=[90.0, 91.0]), comparison("a", agent=[92.0, 92.0], other=[89.0, 89.0])
    for name, content in (("few.json", few), ("many.json", many)):
        (tmp_path / name).write_text(json.dumps(content))
    given = [str(tmp_path / "few.json"), "--against", str(tmp_path / "many.json")]
    monkeypatch.setattr(sys, "argv", ["pooled.py", *given])
    pooled.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["agent minus agent", "agent minus other"]
    assert "-1.50 [" in lines[0] and "+1.50 [" in lines[1] and lines[1].endswith("2 pairs")


def test_a_folder_has_a_file_for_each_search_and_any_figure_is_compared(pooled, tmp_path, capsys, monkeypatch):
    for row in comparison("a", agent=[90.0, 91.0], once=89.0)["rows"]:
        made = {**row, "top1_test_after": row["top1_test_before"] + (row["method"] == "agent")}
        (tmp_path / f"{row['method']}-{row['seed']}.json").write_text(json.dumps(made))
    monkeypatch.setattr(sys, "argv", ["pooled.py", str(tmp_path), "--figure", "top1_test_after"])
    pooled.main()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("agent minus once: +2.50 [") and line.endswith("2 pairs")
