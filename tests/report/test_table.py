import io

from rich.console import Console

from gnnrl_lightning.report.table import inspection_tables, print_result, result_table
from tests.support.results import RESULT


def test_cells_are_the_figures():
    columns = {column.header: list(column.cells) for column in result_table(RESULT, 64).columns}
    assert columns["network"] == ["dense", "uniform", "ours"]
    assert columns["macs"] == ["2.000 M", "998.0 k", "1.000 M"]
    assert columns["params"] == ["400.0 k", "180.0 k", "200.0 k"]
    assert columns["ms/64"] == ["8.00", "6.00", "5.12"]
    assert columns["pruned"] == ["", "60.00", "88.00"]
    assert columns["tuned"] == ["99.00", "98.25", "98.75"]
    kept = [list(column.cells) for column in result_table(RESULT, 64).columns if column.header == "kept"]
    assert kept == [["100.0%", "49.9%", "50.0%"], ["100.0%", "45.0%", "50.0%"]]


def test_printed_table_names_budget_and_finder():
    console = Console(file=io.StringIO(), width=140)
    print_result(RESULT, 64, console)
    text = console.file.getvalue()
    assert "ResNet-20 on digits, budget: macs 0.5 " in text
    assert "found by agent in 96 evaluations, 42 s" in text
    assert "the agent's own best 90.50 %" in text


def test_agent_without_a_candidate():
    console = Console(file=io.StringIO(), width=140)
    search = {**RESULT["search"], "found_by": "uniform", "agent_best": None}
    print_result({**RESULT, "search": search}, 64, console)
    assert "the agent's own best none" in console.file.getvalue()


INSPECTED = {"macs": 9, "smallest_macs": 3, "kept": [], "groups": [], "frozen": []}


def test_groups_with_their_ranges_and_kept_layers():
    members = [{"parameter": "a.weight", "dimension": 0}, {"parameter": "b.weight", "dimension": 1}]
    group = {"name": "a", "width": 8, "lowest": 2, "highest": 6, "members": members}
    _, table = inspection_tables(INSPECTED | {"groups": [group], "kept": ["stem", "head"]})
    assert [list(column.cells) for column in table.columns] == [
        ["a"],
        ["8"],
        ["2"],
        ["6"],
        ["a.weight[0], b.weight[1]"],
    ]
    assert table.caption == "kept by the user: stem, head"
    assert inspection_tables(INSPECTED)[1].caption is None


def test_widths_that_were_given_have_no_uniform_row_and_no_search():
    given = {name: RESULT[name] for name in RESULT if name != "uniform"} | {"budget": {}, "search": {"seed": 0}}
    console = Console(file=io.StringIO(), width=140)
    print_result(given, 64, console)
    text = console.file.getvalue()
    assert "ResNet-20 on digits, widths as given" in text and "evaluations" not in text and "uniform" not in text
    assert "top-1 on the holdout 90.50 % before fine-tuning" in text


def test_frozen_groups_with_operator_and_source_line():
    frozen = {"name": "stem", "width": 6, "operator": "cumprod", "reason": "no rule", "source": "mix (net.py:7: f(x))"}
    costs = {"macs": 9000, "smallest_macs": 3000, "params": 4, "smallest_params": 1}
    tables = inspection_tables(INSPECTED | costs | {"frozen": [frozen]})
    cells = [list(column.cells) for column in tables[0].columns]
    assert cells == [["macs", "params"], ["9,000", "4"], ["3,000 (33.33%)", "1 (25.00%)"]]
    table = tables[-1]
    assert [list(column.cells) for column in table.columns] == [
        ["stem"],
        ["6"],
        ["cumprod"],
        ["no rule"],
        ["mix (net.py:7: f(x))"],
    ]
