import io
import re

import pytest
from rich.console import Console

from gnnrl_lightning.report.costs import TIME_HINT
from gnnrl_lightning.report.pages.records import NETWORKS
from gnnrl_lightning.report.table import inspection_tables, print_result, result_table
from tests.support.results import RESULT


def test_cells_are_the_figures():
    columns = {column.header: list(column.cells) for column in result_table(RESULT).columns}
    assert columns["network"] == ["dense", "uniform", "ours"]
    assert columns["macs"] == ["2.000 M", "998.0 k", "1.000 M"]
    assert columns["params"] == ["400.0 k", "180.0 k", "200.0 k"]
    assert columns["ms/64"] == ["8.00", "6.00", "5.12"]
    assert columns["pruned"] == ["", "60.00", "88.00"]
    assert columns["tuned"] == ["99.00", "98.25", "98.75"]
    kept = [list(column.cells) for column in result_table(RESULT).columns if column.header == "kept"]
    assert kept == [["100%", "49.9%", "50.0%"], ["100%", "45.0%", "50.0%"], ["100%", "75.0%", "64.1%"]]


def test_a_latency_is_shown_as_measured():
    """A budget for it has a predicted one, too."""
    predicted = {key: row | {"latency": 1.0, "latency_ratio": 0.5} for key, row in RESULT.items() if key in NETWORKS}
    heads = [column.header for column in result_table(RESULT | predicted | {"budget": {"latency": "60%"}}).columns]
    assert heads == ["network", "macs", "kept", "params", "kept", "ms/64", "kept", "pruned", "tuned"]


def test_a_latency_of_another_machine_is_shown_beside_the_time_here():
    """By a table of the user's own, of a phone for example."""
    predicted = {key: row | {"latency": 1.0, "latency_ratio": 0.5} for key, row in RESULT.items() if key in NETWORKS}
    heads = [column.header for column in result_table(RESULT | predicted | {"latency": {"table": "phone.csv"}}).columns]
    assert heads[5:9] == ["latency", "kept", "ms/64", "kept"]


def test_a_table_with_a_limit_on_the_latency_fits_into_80_columns():
    console = Console(file=io.StringIO(), width=80)
    console.print(result_table(RESULT))
    assert "…" not in console.file.getvalue()


@pytest.mark.parametrize("width", [80, 60])
def test_figures_are_whole_in_a_narrow_terminal(width):
    """The row of a lossy format has a longer name than the others."""
    small = {"files": {"model.int8.onnx": 16_000}, "top1_search": 88.0, "top1_test": 97.25, "drop": 0.02}
    table, console = result_table(RESULT | {"formats": {"int8": small}}), Console(file=io.StringIO(), width=width)
    console.print(table)
    text = console.file.getvalue()
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    lines = [line.split("│")[1:-1] for line in text.splitlines() if line.startswith("│")]
    printed = ["".join(part.replace(" ", "") for part in column) for column in zip(*lines, strict=True)]
    assert printed == ["".join(column.cells).replace(" ", "") for column in table.columns]


def test_printed_table_names_budget_and_finder():
    console = Console(file=io.StringIO(), width=140)
    print_result(RESULT, console)
    text = console.file.getvalue()
    assert "ResNet-20 on digits, budget: macs 0.5 " in text
    assert "found by the agent in 96 evaluations, 42 s" in text
    assert "the agent's own best 90.50 %" in text


@pytest.mark.parametrize(("milliseconds", "said"), [(6.5, True), (5.9, False), (9.0, True)])
def test_macs_that_save_little_time_are_said(milliseconds, said):
    """Half of the MACs: a quarter of the 8 ms should be gone."""
    console = Console(file=io.StringIO(), width=140)
    print_result({**RESULT, "pruned": RESULT["pruned"] | {"latency_ms": milliseconds}}, console)
    line = f"50% of the MACs take {milliseconds / 8:.0%} of the dense network's time here: {TIME_HINT}"
    assert (line in console.file.getvalue()) is said


@pytest.mark.parametrize(
    ("epochs", "kept", "said"),
    [
        ([70.0, 92.5], True, ["ours: top-1 on the holdout before fine-tuning 90.00 %, after it 92.50 %"]),
        (
            [67.0, 91.25, 89.5],
            False,
            [
                "ours: top-1 on the holdout before fine-tuning 90.00 %, after it 89.50 %, after epoch 2 of 3 91.25 %",
                "ours: the network before fine-tuning is delivered: try a smaller finetuning.learning_rate",
            ],
        ),
        ([], True, []),
    ],
)
def test_what_fine_tuning_has_come_to_is_said(epochs, kept, said):
    console = Console(file=io.StringIO(), width=140)
    after = epochs[-1] if epochs else 90.0
    found = {"top1_search_before": 90.0, "top1_search_after": after, "top1_search_epochs": epochs}
    print_result({**RESULT, "pruned": RESULT["pruned"] | found | {"finetuning_kept": kept}}, console)
    lines = console.file.getvalue().splitlines()
    assert [line for line in lines if "fine-tuning" in line and ": " in line and "latency" not in line] == said


def test_finals_are_said():
    console = Console(file=io.StringIO(), width=140)
    finals = {"trained": [{}, {}, {}], "seconds": 61.2}
    print_result({**RESULT, "search": {**RESULT["search"], "finals": finals}}, console)
    assert "3 finalists were trained for a few steps, 61 s; the best of them is delivered" in console.file.getvalue()


def test_what_a_search_has_found_for_other_budgets_is_a_table():
    console = Console(file=io.StringIO(), width=140)
    rows = [{"macs_budget": share, "macs_ratio": share - 0.01, "top1_search": 90 * share} for share in (0.3, 0.7)]
    print_result({**RESULT, "search": {**RESULT["search"], "front": rows}}, console)
    text = console.file.getvalue()
    lines = [re.findall(r"[\d.]+(?: %)?", line) for line in text.splitlines() if line.count("│") == 4]
    assert lines == [["0.3", "29.0 %", "27.00"], ["0.7", "69.0 %", "63.00"]]
    assert text.splitlines()[-1].startswith("prune --widths .../result.json --share BUDGET makes")


def test_a_search_without_the_agent_does_not_speak_of_it():
    console = Console(file=io.StringIO(), width=140)
    search = {**RESULT["search"], "found_by": "uniform", "agent_best": None}
    print_result({**RESULT, "search": search}, console)
    text = console.file.getvalue()
    assert "found by uniform in 96 evaluations, 42 s; top-1 on the holdout 90.50 %\n" in text and "agent" not in text


INSPECTED = {"macs": 9, "smallest_macs": 3, "kept": [], "groups": [], "reasons": []}


def test_groups_with_their_ranges_and_kept_layers():
    members = [{"parameter": "a.weight", "dimension": 0}, {"parameter": "b.weight", "dimension": 1}]
    group = {
        "name": "a",
        "width": 8,
        "lowest": 2,
        "highest": 6,
        "stays": "the output would not depend",
        "members": members,
    }
    other = {**group, "name": "b", "stays": None, "members": members[:1]}
    _, table = inspection_tables(INSPECTED | {"groups": [group, other], "kept": ["stem", "head"]})
    assert [list(column.cells) for column in table.columns] == [
        ["a", "b"],
        ["8", "8"],
        ["2", "2"],
        ["6", "6"],
        ["no", "yes"],
        ["a.weight[0], b.weight[1]", "a.weight[0]"],
    ]
    assert table.caption == "kept by the user: stem, head"
    console = Console(file=io.StringIO(), width=40)
    console.print(table)
    assert "…" not in console.file.getvalue()
    assert inspection_tables(INSPECTED)[1].caption is None


def test_widths_that_were_given_have_no_uniform_row_and_no_search():
    given = {name: RESULT[name] for name in RESULT if name != "uniform"} | {"budget": {}, "search": {"seed": 0}}
    console = Console(file=io.StringIO(), width=140)
    print_result(given, console)
    text = console.file.getvalue()
    assert "ResNet-20 on digits, widths as given" in text and "evaluations" not in text and "uniform" not in text
    assert "top-1 on the holdout 90.50 % before fine-tuning" in text


def test_reasons_of_frozen_groups_with_line_and_remedy():
    words = {"operator": "cumprod", "reason": "no rule", "source": "net.py:7: f(x)", "remedy": "use cumsum"}
    reason = {"groups": ["stem", "head"], "channels": 6, "macs": 1200, **words}
    costs = {"macs": 9000, "smallest_macs": 3000, "params": 4, "smallest_params": 1}
    tables = inspection_tables(INSPECTED | costs | {"reasons": [reason]})
    cells = [list(column.cells) for column in tables[0].columns]
    assert cells == [["macs", "params"], ["9,000", "4"], ["3,000 (33.33%)", "1 (25.00%)"]]
    table = tables[-1]
    assert [list(column.cells) for column in table.columns] == [
        ["stem, head"],
        ["6"],
        ["1,200"],
        ["cumprod"],
        ["no rule"],
        ["net.py:7: f(x)"],
        ["use cumsum"],
    ]


LIMITED = {"batch_size": 1, "limit": 4.8, "measured": 4.7, "mean_error": 0.021, "networks": 9, "table": None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "4.7 ms (58.8%) is measured; predicted with a mean error of 2.1% for 9 networks, 2 candidates measured"),
        (
            {"mean_error": None, "table": "phone.csv"},
            "4.7 ms (58.8%) is measured here; it was predicted from phone.csv",
        ),
    ],
)
def test_a_limit_on_latency_is_said_to_be_met(changes, said):
    """5.12 ms of the network are in the table, and 60 % of the dense network's 8 ms were asked for."""
    search = {**RESULT["search"], "latency_checks": [{}, {}]}
    console = Console(file=io.StringIO(), width=140)
    print_result({**RESULT, "latency": {**LIMITED, **changes}, "search": search}, console)
    text = console.file.getvalue()
    assert "latency: at most 4.8 ms (60.0% of the dense network's) was asked for, " + said in text
    assert "ms/1" in text and "ms/64" not in text


def test_results_without_a_limit_on_latency_say_nothing_of_one():
    console = Console(file=io.StringIO(), width=140)
    print_result({**RESULT, "latency": {"batch_size": 64}}, console)
    assert "latency: at most" not in console.file.getvalue()
