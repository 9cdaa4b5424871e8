"""Figures of a comparison of methods: every run's figure, paired differences, and progress."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from textwrap import wrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gnnrl_lightning.objective import Figure as Scale
from gnnrl_lightning.objective.protocol import primary_figure
from gnnrl_lightning.report.comparison import LATENCY, headings, in_words
from gnnrl_lightning.report.pages.drawing import (
    DENSE,
    INK,
    MUTED,
    OTHER,
    OURS,
    START,
    UNIFORM,
    canvas,
    legend,
    literal,
    whole_numbers,
)
from gnnrl_lightning.report.pages.words import unit_of

LINES = tuple(zip((OURS, UNIFORM, START, OTHER, DENSE, INK), ("-", "--", "-.", ":", "-", "--"), "osD^vP", strict=True))
"""Colour, line and mark of each series; one figure has at most as many."""
ROW = 0.26
"""Height of a method, inches."""
CHARACTERS = 28
"""Maximum length of a line of a method's name."""


def last_stage(rows: Sequence[Mapping[str, Any]], primary: str) -> str:
    """Return the key of the figure of the last stage that all runs have."""
    return [key for key in headings(primary) if all(key in row for row in rows)][-1]


def methods_figure(found: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the last figure of every run, by method, the best method first.

    Args:
        found: Contents of compare.json.
        rows: Runs of one budget.
    """
    primary, figure = primary_figure(found)
    key = last_stage(rows, primary)
    values = {name: [row[key] for row in rows if row["method"] == name] for name in {row["method"]: 0 for row in rows}}
    order = sorted(values, key=lambda name: figure.merit(fmean(values[name])))
    drawing, axes = _rows(order)
    for at, name in enumerate(order):
        colour = OURS if name == _agent(found) else OTHER
        axes.scatter(values[name], [at] * len(values[name]), s=22, color=colour, zorder=3)
        mean = fmean(values[name])
        axes.vlines(mean, at - 0.32, at + 0.32, color=INK, linewidth=1.6, zorder=4)
    axes.set_xlabel(figure.label + unit_of(figure))
    return drawing


def front_figure(found: Mapping[str, Any]) -> Figure | None:
    """Draw the last figure of every run over its measured latency, of all budgets.

    Colours are methods, and marks are the widths that the budget allows if these differ, else also methods.

    Args:
        found: Contents of compare.json.

    Returns:
        None: there is only one budget, or runs of an earlier release, which measured no latency.
    """
    rows = found["rows"]
    if len({str(row["budget"]) for row in rows}) < 2 or not all(LATENCY in row for row in rows):
        return None
    primary, figure = primary_figure(found)
    key = last_stage(rows, primary)
    drawing, (axes,) = canvas()
    methods = dict.fromkeys(row["method"] for row in rows)
    looks = {name: (colour, mark) for name, (colour, _, mark) in zip(methods, LINES, strict=False)}
    widths = dict.fromkeys(_widths(row) for row in rows)
    marks = {name: mark for name, (_, _, mark) in zip(widths, LINES, strict=False)} if len(widths) > 1 else {}
    for row in rows:
        colour, mark = looks.get(row["method"], (MUTED, "."))
        mark = marks.get(_widths(row), ".") if marks else mark
        axes.scatter(100 * row[LATENCY], row[key], s=24, color=colour, marker=mark, zorder=3)
    for name, (colour, mark) in looks.items():
        axes.scatter([], [], s=24, color=colour, marker="o" if marks else mark, label=literal(in_words(name)))
    for name, mark in marks.items():
        axes.scatter([], [], s=24, color=MUTED, marker=mark, label=name)
    axes.set(xlabel="measured latency, % of the dense network's", ylabel=figure.label + unit_of(figure))
    if not figure.higher_is_better:
        axes.invert_yaxis()
    legend(drawing, axes, columns=2)
    return drawing


def _widths(row: Mapping[str, Any]) -> str:
    """Say which widths the budget of a run allows."""
    multiple = f"multiples of {row['channel_multiple']}" if row["channel_multiple"] > 1 else "any width"
    return multiple + ("" if row["min_width"] else ", groups may go")


def differences_figure(found: Mapping[str, Any], paired: Sequence[Mapping[str, Any]], key: str) -> Figure | None:
    """Draw the agent minus every other method with the 95 % intervals; None: there is nothing to compare.

    Args:
        found: Contents of compare.json.
        paired: Differences at one budget.
        key: Figure to draw.
    """
    _, figure = primary_figure(found)
    entries = [entry for entry in paired if entry["metric"] == key]
    entries.sort(key=lambda entry: figure.merit(entry["mean"]), reverse=True)
    if not entries:
        return None
    drawing, axes = _rows([entry["method"] for entry in entries])
    axes.axvline(0, color=MUTED, linewidth=1)
    for at, entry in enumerate(entries):
        if entry["low"] is not None:
            axes.hlines(at, entry["low"], entry["high"], color=OURS, linewidth=1.8)
        axes.scatter([entry["mean"]], [at], s=26, color=OURS, zorder=3)
    unit = {"%": "points", "": figure.label}.get(figure.unit, figure.unit)
    axes.set_xlabel(
        f"{entries[0]['agent']} minus method, {unit} ({'right' if figure.higher_is_better else 'left'} is better)"
    )
    return drawing


def progress_figure(
    found: Mapping[str, Any], journals: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]
) -> Figure | None:
    """Draw the score of the best candidate so far, mean over seeds; None: no journal has more than one candidate.

    Args:
        found: Contents of compare.json.
        journals: Method -> a journal for each seed, at one budget. The agent and the methods that end best are drawn.
    """
    primary, figure = primary_figure(found)
    courses = {name: mean_course([best_so_far(run, primary) for run in runs]) for name, runs in journals.items()}
    courses = {name: course for name, course in courses.items() if len(course) > 1}
    order = sorted(courses, key=lambda name: (name == _agent(found), figure.merit(courses[name][-1])), reverse=True)
    if not order:
        return None
    return lines_figure(
        {in_words(name): [*enumerate(courses[name], 1)] for name in order[: len(LINES)]},
        "candidates evaluated",
        f"{figure.label} on the holdout{unit_of(figure)}",
        figure,
    )


def best_so_far(journal: Sequence[Mapping[str, Any]], primary: str) -> list[float]:
    """Return the primary score of the best candidate after each one; dropped ones are never the best.

    Args:
        journal: Records in the order of evaluation.
        primary: Name of the primary score.
    """
    scores, best = [], None
    for item in journal:
        rank = not item["dropped"], tuple(-math.inf if part is None else part for part in item["merit"])
        if best is None or rank > best[0]:
            best = rank, item["scores"][primary]
        scores.append(best[1])
    return [math.nan if score is None else score for score in scores]


def mean_course(courses: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean of several courses, as far as all of them go."""
    return [fmean(values) for values in zip(*courses, strict=False)]


def lines_figure(series: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str, scale: Scale) -> Figure:
    """Draw a few series of points, told apart by colour, line and mark; better is up.

    Args:
        series: Name -> points; at most as many as `LINES`.
        across: Label of the horizontal axis.
        up: Label of the vertical axis.
        scale: The figure on the vertical axis.
    """
    drawing, (axes,) = canvas()
    for (name, points), (colour, line, shape) in zip(series.items(), LINES, strict=False):
        every = max(1, len(points) // 12)
        axes.plot(
            [x for x, _ in points], [y for _, y in points],
            color=colour, linestyle=line, marker=shape, markersize=4, markevery=every, drawstyle="steps-post",
            label=literal(name),
        )  # fmt: skip
    axes.set(xlabel=across, ylabel=up)
    if not scale.higher_is_better:
        axes.invert_yaxis()
    whole_numbers(axes)
    legend(drawing, axes, columns=2)
    return drawing


def _rows(methods: Sequence[str]) -> tuple[Figure, Axes]:
    """Return a new figure with a row for each method, from below; long names have several lines."""
    names = [wrap(in_words(name), CHARACTERS) for name in methods]
    height = ROW * max(1.0, 0.65 * max(map(len, names)))
    drawing, (axes,) = canvas(height=0.9 + height * len(names))
    axes.set_yticks(range(len(names)), [literal("\n".join(lines)) for lines in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    return drawing, axes


def _agent(found: Mapping[str, Any]) -> str | None:
    return next((entry["agent"] for entry in found["paired"]), None)
