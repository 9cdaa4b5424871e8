from pathlib import Path

import pytest

from gnnrl_lightning.objective import Classification, Figure, Regression
from gnnrl_lightning.objective.protocol import record
from gnnrl_lightning.report.pages.words import (
    candidate_rows,
    compared,
    finder,
    joined,
    limit,
    prune_command,
    repeat_command,
    result_rows,
    result_table,
    title,
    verdict,
)
from tests.support.results import RESULT, candidate

TOP1 = Figure("top-1", "%", higher_is_better=True)
ERROR = Figure("error", "mm", digits=1)


@pytest.mark.parametrize(
    ("figure", "value", "reference", "said"),
    [
        (TOP1, 98.75, 99.0, "0.25 points worse than it (99.00)"),
        (TOP1, 98.75, 98.25, "0.50 points better than it (98.25)"),
        (TOP1, 98.75, 98.751, "the same as it"),
        (ERROR, 2.0, 3.5, "1.5 mm better than it (3.5)"),
        (ERROR, 4.0, 3.5, "0.5 mm worse than it (3.5)"),
        (Figure("loss"), 4.0, 3.5, "0.50 worse than it (3.50)"),
    ],
)
def test_a_figure_is_compared_in_its_direction(figure, value, reference, said):
    assert compared(figure, value, reference, "it") == said


def test_the_verdict_answers_what_a_reader_asks_first():
    score, cost = verdict(RESULT)
    assert score.startswith("The pruned network has 98.75 % top-1 on the test set (400 examples): 0.25 points worse")
    assert "0.50 points better than uniform pruning" in score
    assert cost == (
        "It keeps 50.0 % of the MACs, 50.0 % of the parameters and 64 % of the time: 5.12 ms instead of 8 ms for a "
        "batch of 64."
    )


@pytest.mark.parametrize(("latency", "saves"), [(7.7, True), (7.9, False), (9.0, False)])
def test_a_result_without_saved_time_says_so(latency, saves):
    result = {**RESULT, "pruned": {**RESULT["pruned"], "latency_ms": latency}}
    said = verdict(result)[1]
    assert ("saves no time" in said) is not saves
    assert said.endswith("`budget.latency` limits the time itself.")  # 4 % of the time or less


def test_widths_as_given_are_compared_with_the_dense_network_only():
    given = {name: value for name, value in RESULT.items() if name != "uniform"} | {"budget": {}}
    assert "uniform" not in verdict(given)[0] and title(given) == "ResNet-20 on digits: widths as given"
    assert [row["network"] for row in result_table(given)] == ["dense", "ours"]


def test_cells_are_the_figures():
    headings, rows = result_rows(RESULT)
    cells = {heading: [row[i] for row in rows] for i, heading in enumerate(headings)}
    assert cells == {
        "network": ["dense", "uniform", "ours"],
        "top-1, %": ["99.00", "98.25", "98.75"],
        "minus dense": ["", "-0.75", "-0.25"],
        "MACs kept": ["100.0 %", "49.9 %", "50.0 %"],
        "parameters kept": ["100.0 %", "45.0 %", "50.0 %"],
        "time": ["100 %", "75 %", "64 %"],
        "before fine-tuning": ["", "60.00", "88.00"],
        "MACs": ["2.000 M", "998.0 k", "1.000 M"],
        "parameters": ["400.0 k", "180.0 k", "200.0 k"],
        "ms for 64": ["8.00", "6.00", "5.12"],
    }


def test_other_objectives_have_their_own_words():
    scores = {"rmse_test": 5.0, "rmse_test_before": 9.0, "rmse_test_after": 6.0}
    rows = {name: {**RESULT[name], **scores} for name in ("dense", "uniform", "pruned")}
    objective = record(Regression())
    assert objective["primary"] == "rmse" and record(Classification())["primary"] == "top1"
    assert "1.0000 worse than the dense network (5.0000)" in verdict({**RESULT, **rows, "objective": objective})[0]


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.5, "50 % of the"), ("60%", "60 % of the"), (40_000_000, "40.00 M"), (0.125, "12.5 % of the"), ("3 ms", "3 ms")],
)
def test_limits(value, said):
    assert limit(value) == said


@pytest.mark.parametrize(("parts", "said"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), ([*"abc"], "a, b and c")])
def test_enumerations(parts, said):
    assert joined(parts) == said


def test_the_command_is_quoted():
    assert (
        repeat_command("fit", Path("my runs/a"))
        == "python -m gnnrl_lightning fit --config 'my runs/a/config.yaml' --run.name again"
    )


@pytest.mark.parametrize(
    ("proposer", "said"),
    [
        ("dynamic_programming", "found by dynamic programming in 96 evaluations, 42 s"),
        (
            "latency",
            "found after 96 evaluations, 42 s, when the best candidates were measured and brought to the limit on the "
            "latency",
        ),
    ],
)
def test_who_found_the_network(proposer, said):
    assert finder(RESULT["search"] | {"found_by": proposer}) == said


def test_short_latencies_are_told_apart():
    rows = {name: {**RESULT[name], "latency_ms": time} for name, time in (("dense", 0.0318), ("pruned", 0.0288))}
    headings, cells = result_rows({**RESULT, **rows})
    times = [row[headings.index("ms for 64")] for row in cells]
    assert times == ["0.032", "6.00", "0.029"]


def test_candidates_are_in_the_words_of_the_page():
    journal = [candidate("tapered_up", 74.9129, 0.0338, seconds=0.0917), candidate("agent", None, 0.5, dropped=True)]
    headings, rows = candidate_rows(RESULT, journal)
    assert headings == ["candidate", "proposed by", "top-1, %", "MACs kept", "parameters kept", "seconds", "dropped"]
    assert rows == [
        ["1", "tapered up", "74.91", "50.0 %", "3.4 %", "0.09", ""],
        ["2", "agent", "infinite", "50.0 %", "50.0 %", "0.50", "yes"],
    ]


@pytest.mark.parametrize(
    ("config", "weights"),
    [({"checkpoint": None}, " --checkpoint runs/a/checkpoints/dense.safetensors"), ({"checkpoint": "mine.pt"}, "")],
)
def test_the_command_that_prunes_has_its_network_and_weights(config, weights):
    assert prune_command(Path("runs/a"), config) == (
        f"python -m gnnrl_lightning prune --config runs/a/config.yaml{weights} --widths runs/a/result.json "
        "--share BUDGET --run.name NAME"
    )
