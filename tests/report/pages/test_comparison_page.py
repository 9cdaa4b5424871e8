import re

import pytest

from gnnrl_lightning.objective import Classification
from gnnrl_lightning.objective.protocol import record
from gnnrl_lightning.report.comparison import summarise
from gnnrl_lightning.report.pages.comparison_figures import best_so_far, last_stage, mean_course, methods_figure
from gnnrl_lightning.report.pages.comparison_page import comparison_page, verdicts
from gnnrl_lightning.report.pages.drawing import styled
from tests.support.results import candidate


def row(method, seed, score, budget=0.5):
    figures = {"top1_search": score, "top1_test_before": score, "macs_ratio": budget, "params_ratio": 0.4}
    return {
        "method": method,
        "seed": seed,
        "budget": budget,
        "evaluations": 80,
        "examples": 9,
        "seconds": 3.0,
    } | figures


ROWS = [row("agent", seed, 90 + 0.1 * seed) for seed in range(3)]
ROWS += [row("evolution", seed, 85 + 0.1 * seed) for seed in range(3)]
ROWS += [row("random", seed, score) for seed, score in enumerate((89.0, 91.0, 90.2))] + [row("uniform", None, 95.0)]


@pytest.fixture
def found():
    return {
        "network": "ResNet-20",
        "dataset": "digits",
        "objective": record(Classification()),
        "dense": {"top1_test": 99.0},
        "test_half": "all",
        "test_examples": 400,
        "rows": ROWS,
        "refused": [],
        **summarise(ROWS, "agent", "top1"),
        "versions": {"torch": "2.9"},
    }


def test_the_verdict_says_what_is_more_than_chance(found):
    (text,) = verdicts(found)
    assert text == (
        "Budget 0.5: uniform is best with 95.00 % top-1 on the test set, before fine-tuning (dense 99.00). With "
        "95 % confidence the agent is better than evolution, is worse than uniform, cannot be told from random."
    )


def test_one_method_is_not_called_the_best(found):
    rows = [row("agent", 0, 80.0, budget=0.5)]
    (text,) = verdicts({**found, "rows": rows, **summarise(rows, "agent", "top1")})
    assert text == "Budget 0.5: the agent has 80.00 % top-1 on the test set, before fine-tuning (dense 99.00)."


def test_the_page_has_a_section_for_each_budget(found):
    rows = [*ROWS, *(row("agent", seed, 80.0 + seed, budget=0.3) for seed in range(2))]
    figures = {**found, "rows": rows, **summarise(rows, "agent", "top1")}
    read = []

    def journal(budget, method, seed):
        read.append((budget, method, seed))
        return [candidate(method, 70.0, 0.5), candidate(method, 80.0, 0.5)]

    page = comparison_page("mine", "repeat it", "a: 1\n", figures, journal)
    assert ("0.3", "agent", 1) in read and len(read) == len(set(read)) == len(rows)
    headings = re.findall(r"<h2>Figures, budget ([^<]+)</h2>", page)
    assert headings == ["0.5", "0.3"]
    # No differences at 0.3, where there is the agent alone.
    assert [len(re.findall("<svg", part)) for part in page.split("<h2>Figures, budget")[1:]] == [3, 2]
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_all_budgets_share_a_figure_over_latency(found):
    """Its marks tell which widths a budget allows; without measured latencies, there is no such figure."""
    faster = {"latency_measured_ratio": 0.3, "channel_multiple": 8, "min_width": 0, "budget": 0.3}
    slower = {"latency_measured_ratio": 0.7, "channel_multiple": 1, "min_width": 1}
    rows = [*(row | slower for row in ROWS), *(row | faster for row in ROWS)]
    page = comparison_page("mine", "repeat it", "a: 1\n", {**found, "rows": rows}, lambda *_: [])
    (section,) = re.findall(r"<h2>Figures, all budgets</h2>(.*?)<h2>", page, flags=re.DOTALL)
    for part in ("measured latency", "any width", "multiples of 8, groups may go", "evolution"):
        assert part in section
    for others in ([*rows, ROWS[0]], rows[: len(ROWS)]):
        page = comparison_page("mine", "repeat it", "a: 1\n", {**found, "rows": others}, lambda *_: [])
        assert "all budgets" not in page


def test_the_last_stage_is_one_that_all_runs_have():
    tuned = {**row("agent", 0, 90.0), "top1_test_after": 91.0}
    assert last_stage([tuned], "top1") == "top1_test_after"
    assert last_stage([tuned, row("agent", 1, 90.0)], "top1") == "top1_test_before"


def test_progress_is_the_primary_score_of_the_best_by_merit():
    journal = [
        candidate("a", 80.0, 0.5, merit=1.0),
        candidate("a", 79.0, 0.5, merit=2.0),
        candidate("a", 99.0, 0.5, merit=3.0, dropped=True),
        candidate("a", 85.0, 0.5, merit=None),
    ]
    assert best_so_far(journal, "top1") == [80.0, 79.0, 79.0, 85.0]
    assert mean_course([[1.0, 2.0, 3.0], [3.0, 4.0]]) == [2.0, 3.0]


def test_figures_say_where_they_are_measured(found):
    """Of the last stage that all runs of the budget have."""
    tuned = [{**row, "budget": 0.3, "top1_test_after": 91.0} for row in ROWS]
    rows = [*ROWS, *tuned]
    page = comparison_page("mine", "x", "", {**found, "rows": rows, **summarise(rows, "agent", "top1")}, lambda *_: [])
    sections = page.split("<h2>Figures, budget")[1:]
    for section, said in zip(sections, ("before fine-tuning", "after fine-tuning"), strict=True):
        assert section.count(f": top-1 on the test set, {said}.") == 2  # every run, and differences


def test_long_names_of_methods_leave_room_for_the_data(found):
    rows = [{**row, "method": "my_package.searches.climbing_a_hill_with_a_long_name"} for row in ROWS[:3]]
    with styled():
        figure = methods_figure(found, [*rows, *ROWS[3:]])
    figure.draw_without_rendering()
    assert figure.axes[0].get_position().width > 0.5
