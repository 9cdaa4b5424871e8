"""The report of a comparison of methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from gnnrl_lightning.objective.protocol import primary_figure
from gnnrl_lightning.report.comparison import as_subject, comparison_tables, where
from gnnrl_lightning.report.pages import markup
from gnnrl_lightning.report.pages.comparison_figures import (
    differences_figure,
    front_figure,
    last_stage,
    methods_figure,
    progress_figure,
)
from gnnrl_lightning.report.pages.drawing import styled, svg
from gnnrl_lightning.report.pages.words import joined

Journals = Callable[[str, str, int | None], Sequence[Mapping[str, Any]]]
"""`(budget, method, seed) -> records of its journal`."""

COLUMNS = (
    "Cost and s: evaluations and seconds of the search. MACs and time: shares of the dense network's. Search: score on "
    "the holdout of the candidate that a method delivers: its best one, or the fastest of those that are as good. "
    "Test: score of the same network on the test set, before fine-tuning; tuned: after it."
)

ALL = "all budgets"
"""In place of a budget, for what is drawn of all of them."""

TEXTS = {
    "front": ("Every run over its latency", "The winner of every run; further left is faster."),
    "methods": ("Every run", "A dot for each seed, a line for the mean of the method."),
    "differences": ("The agent minus each method", "Mean over seeds, and its 95 % confidence interval."),
    "progress": (
        "Progress",
        "Score of the candidate with the best reward so far, mean over seeds: the agent and the best other methods.",
    ),
}
"""Figure -> heading and caption."""
TESTED = ("front", "methods", "differences")
"""Figures of the last stage of the runs."""


def comparison_figures(found: Mapping[str, Any], journals: Journals) -> Iterator[tuple[str, str, Figure]]:
    """Draw the figures of every budget; use and save them within `drawing.styled`.

    Args:
        found: Contents of compare.json.
        journals: Reads the journal of a run.

    Yields:
        Kind (a key of `TEXTS`), budget or `ALL`, and figure.
    """
    primary, _ = primary_figure(found)
    front = front_figure(found)
    if front is not None:
        yield "front", ALL, front
    for budget in {str(row["budget"]): None for row in found["rows"]}:
        rows = [row for row in found["rows"] if str(row["budget"]) == budget]
        paired = [entry for entry in found["paired"] if str(entry["budget"]) == budget]
        runs: dict[str, list[Sequence[Mapping[str, Any]]]] = {}
        for row in rows:
            runs.setdefault(row["method"], []).append(journals(budget, row["method"], row["seed"]))
        drawn = {
            "methods": methods_figure(found, rows),
            "differences": differences_figure(found, paired, last_stage(rows, primary)),
            "progress": progress_figure(found, runs),
        }
        yield from ((kind, budget, figure) for kind, figure in drawn.items() if figure is not None)


def comparison_page(name: str, command: str, configuration: str, found: Mapping[str, Any], journals: Journals) -> str:
    """Return the page of a comparison.

    Args:
        name: Name of the run.
        command: The command that repeats it.
        configuration: Its resolved configuration.
        found: Contents of compare.json.
        journals: Reads the journal of a run.
    """
    figures: dict[str, list[str]] = {}
    with styled():
        for kind, budget, drawn in comparison_figures(found, journals):
            shown = svg(drawn, f"{kind}-{sum(map(len, figures.values()))}", TEXTS[kind][0])
            title, caption = TEXTS[kind]
            if kind in TESTED:
                caption = f"{caption.rstrip('.')}: {_measured(found, budget)}."
            figures.setdefault(budget, []).append(markup.figure(shown, title, caption))
    title = f"{found['network']} on {found['dataset']}: search methods compared"
    parts = [
        markup.heading(title, 1),
        markup.paragraph(f"Run {name}", "about"),
        markup.block([markup.paragraph(text) for text in verdicts(found)], "verdict"),
        *(part for table in comparison_tables(found) for part in rich_table(table)),
        markup.paragraph(COLUMNS, "about"),
        *(part for budget, drawn in figures.items() for part in _section(budget, drawn)),
        markup.heading("Repeat"),
        markup.code(command),
        markup.table(
            ["environment", ""],
            [[name, str(value)] for name, value in {**found.get("machine", {}), **found["versions"]}.items()],
            kind="facts",
        ),
        markup.folded("Configuration", markup.code(configuration)),
    ]
    return markup.page(f"{name}: {title}", parts)


def _section(budget: str, figures: Sequence[str]) -> Iterator[str]:
    yield markup.heading("Figures, all budgets" if budget == ALL else f"Figures, budget {budget}")
    yield markup.block(figures, "figures")


def _measured(found: Mapping[str, Any], budget: str) -> str:
    """Say which figure is drawn of the runs of a budget, or of all."""
    primary, figure = primary_figure(found)
    rows = [row for row in found["rows"] if budget in (ALL, str(row["budget"]))]
    return f"{figure.label} {where(last_stage(rows, primary), primary)}"


def verdicts(found: Mapping[str, Any]) -> Iterator[str]:
    """Say for each budget which of several methods is best, and over which ones the agent's lead is more than chance.

    Args:
        found: Contents of compare.json.
    """
    primary, figure = primary_figure(found)
    for budget in {str(entry["budget"]): None for entry in found["summary"]}:
        rows = [row for row in found["rows"] if str(row["budget"]) == budget]
        key = last_stage(rows, primary)
        summary = [entry for entry in found["summary"] if str(entry["budget"]) == budget]
        best = max(summary, key=lambda entry: figure.merit(entry[key]["mean"]))
        score, dense = figure.with_unit(best[key]["mean"]), figure.text(found["dense"][f"{primary}_test"])
        has = "is best with" if len(summary) > 1 else "has"
        best_one = f"{as_subject(best['method'])} {has} {score} {figure.label} {where(key, primary)}"
        text = f"Budget {budget}: {best_one} (dense {dense})."
        paired = [entry for entry in found["paired"] if (str(entry["budget"]), entry["metric"]) == (budget, key)]
        yield text + (_lead(paired, figure.higher_is_better) if paired else "")


def _lead(paired: Sequence[Mapping[str, Any]], higher_is_better: bool) -> str:
    sides: dict[str, list[str]] = {"is better than": [], "is worse than": [], "cannot be told from": []}
    for entry in paired:
        low, high = entry["low"], entry["high"]
        if low is None or low <= 0 <= high:
            sides["cannot be told from"].append(as_subject(entry["method"]))
        else:
            sides["is better than" if (low > 0) == higher_is_better else "is worse than"].append(
                as_subject(entry["method"])
            )
    told = [f"{side} {joined(methods)}" for side, methods in sides.items() if methods]
    return f" With 95 % confidence {as_subject(paired[0]['agent'])} {', '.join(told)}."


def rich_table(table: Table) -> Iterator[str]:
    """Return a table of the terminal as HTML: title, cells and caption."""
    yield markup.heading(str(table.title or ""), 2)
    rows = zip(*([str(cell) for cell in column.cells] for column in table.columns), strict=True)
    yield markup.table([str(column.header) for column in table.columns], [*map(list, rows)], strong="agent")
    if table.caption:
        yield markup.paragraph(str(table.caption), "about")
