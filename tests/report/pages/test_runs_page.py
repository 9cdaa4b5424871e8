import re

import pytest

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.objective import Regression
from gnnrl_lightning.objective.protocol import record
from gnnrl_lightning.report.pages.runs_page import check_comparable, differences, runs_page
from tests.support.results import CONFIG, RESULT, run_record


def with_score(name, score, latency, **changes):
    pruned = {**RESULT["pruned"], "top1_test_after": score, "latency_ms": latency}
    return run_record(name, result={**RESULT, "pruned": pruned, **changes})


def test_the_verdict_names_the_best_and_the_fastest():
    page = runs_page([with_score("first", 98.0, 4.0), with_score("second", 99.0, 6.0)])
    assert "that of second: 99.00 % top-1, 75 % of the dense network" in page
    assert "The fastest is that of first: 98.00 % top-1, 50 % of" in page
    equal = runs_page([with_score("first", 98.0, 6.0), with_score("second", 98.001, 4.0)])
    assert "that of second: 98.00 % top-1, 50 % of the dense network&#x27;s time. It is also the fastest." in equal


@pytest.mark.parametrize(("groups", "figures"), [(RESULT["groups"], 4), ({"conv1": 16, "other": 32}, 3)])
def test_widths_are_compared_if_the_groups_are_the_same(groups, figures):
    page = runs_page([run_record("one"), with_score("two", 98.0, 4.0, groups=groups)])
    assert len(re.findall("<svg", page)) == figures


def test_only_keys_that_differ_are_listed():
    other = run_record("two", config={**CONFIG, "seed_everything": 1, "episode": {"reward": None}})
    assert differences([run_record("one"), other]) == [
        ["`seed_everything`", "0", "1"],
        ["`episode.reward`", "divergence", "null"],
    ]


REFUSED = {
    "one": ([run_record("one")], "got 1 runs: expected 2 to 6"),
    "many": ([run_record(str(i)) for i in range(7)], "got 7 runs: expected 2 to 6"),
    "unfinished": ([run_record("one"), run_record("two", result=None)], "two has no result.json"),
    "other figures": ([run_record("one"), run_record("two", objective=record(Regression()))], "report rmse, top1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_runs_that_cannot_be_compared(case):
    records, message = REFUSED[case]
    with pytest.raises(UserError, match=message):
        check_comparable(records)


def test_all_stages_are_counted():
    """The search of result.json is that of the last stage."""
    stages = [{"search": {"evaluations": spent, "seconds": 10.0}} for spent in (60, 58, 96)]
    page = runs_page([run_record("one"), with_score("two", 98.0, 4.0, stages=stages)])
    rows = re.findall(r"<td>([^<]*)</td><td>([^<]*)</td></tr>", page)
    assert rows[:2] == [("96", "42"), ("214", "30")]
