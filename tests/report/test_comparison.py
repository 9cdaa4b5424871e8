import pytest
from rich.console import Console

from gnnrl_lightning.objective import Classification
from gnnrl_lightning.objective.protocol import record
from gnnrl_lightning.report.comparison import comparison_tables, in_words, run_line, summarise

COSTS = {"evaluations": 9, "examples": 100, "seconds": 2.0, "macs_ratio": 0.5, "latency_measured_ratio": 0.625}


def row(method, seed, top1, budget=0.5):
    key = {"method": method, "seed": seed, "budget": budget}
    return key | {"top1_search": top1, "top1_test_before": top1 - 1} | COSTS


ROWS = [row("agent", 0, 81.0), row("agent", 1, 83.0), row("uniform", None, 80.0), row("random", 1, 84.0)]


def test_means_and_differences():
    figures = summarise([*ROWS, row("uniform", None, 70.0, budget=0.3)], "agent", "top1")
    by_method = {(entry["budget"], entry["method"]): entry for entry in figures["summary"]}
    assert by_method[0.5, "agent"]["top1_test_before"] == {"n": 2, "mean": 81.0, "sd": pytest.approx(2**0.5)}
    assert by_method[0.5, "uniform"]["top1_search"] == {"n": 1, "mean": 80.0, "sd": None}
    assert by_method[0.3, "uniform"]["evaluations"] == 9
    paired = {(entry["method"], entry["metric"]): entry for entry in figures["paired"]}
    assert {method for method, _ in paired} == {"uniform", "random"}
    assert paired["uniform", "top1_search"]["mean"] == 2.0 and paired["uniform", "top1_search"]["n"] == 2
    assert paired["random", "top1_test_before"]["mean"] == -1.0 and paired["random", "top1_test_before"]["low"] is None
    assert all(entry["budget"] == 0.5 for entry in figures["paired"])


def test_without_an_agent_there_are_means_alone():
    assert summarise(ROWS, None, "top1")["paired"] == []


def printed(rows, refused, width):
    figures = {
        "network": "Small",
        "dataset": "digits",
        "objective": record(Classification()),
        "dense": {"top1_test": 98.0},
        "test_examples": 7,
        "test_half": "odd",
        "refused": refused,
        **summarise(rows, "agent", "top1"),
    }
    console = Console(width=width, record=True, quiet=False)
    with console.capture() as capture:
        for table in comparison_tables(figures):
            console.print(table)
    return capture.get()


def test_nothing_is_cut_off_in_a_narrow_terminal():
    methods = ("agent", "cross_entropy_from_sensitivity")
    finals = [row(method, seed, 80.0 + seed) for method in methods for seed in (0, 1)]
    text = printed([each | {"top1_test_after": each["top1_search"]} for each in finals], [], 80)
    cells = " ".join(line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│"))
    assert "cross entropy from sensitivity" in " ".join(cells.split())
    assert "…" not in text and text.count("±0.71") == 6
    assert max(map(len, text.splitlines())) <= 80


def test_tables_and_lines():
    refused = {"method": "magic", "seed": None, "budget": 0.5, "refused": "it is Tuesday"}
    text = " ".join(printed(ROWS, [refused], 100).split())
    for part in (
        "±1.41",
        "over 2 seeds",
        "50.0% │ 62.5%",
        "agent minus each method, budget 0.5",
        "+2.00 [-10.71, +14.71]",
        "it is Tuesday",
    ):
        assert part in text
    assert run_line(refused, record(Classification())) == "magic, budget 0.5: it is Tuesday"
    assert (
        run_line(ROWS[0], record(Classification()))
        == "agent, budget 0.5, seed 0: 9 evaluations, 2.0 s, top-1 search 81.00, test 80.00"
    )


def test_names_are_in_words_and_import_paths_stay():
    assert in_words("dynamic_programming") == "dynamic programming"
    assert in_words("my_methods.best_of") == "my_methods.best_of"
