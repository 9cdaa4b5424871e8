"""A page that compares the results of several runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.options import flat
from gnnrl_lightning.report.costs import RATIO
from gnnrl_lightning.report.pages import markup
from gnnrl_lightning.report.pages.comparison_figures import LINES, best_so_far, lines_figure
from gnnrl_lightning.report.pages.drawing import MUTED, OURS, UNIFORM, canvas, legend, styled, svg
from gnnrl_lightning.report.pages.network_figures import name_positions
from gnnrl_lightning.report.pages.records import RunRecord
from gnnrl_lightning.report.pages.words import percent, title, unit_of

TEXTS = {
    "macs": ("Score against MACs", "After fine-tuning, on the test set. Numbers are those of the table."),
    "time": ("Score against time", "After fine-tuning; time of a forward pass, measured in each run."),
    "search": ("The searches", "Score on the holdout of the candidate with the best reward so far."),
    "widths": ("Widths", "Share of its channels that each group keeps, by run."),
}
"""Figure -> heading and caption."""

SHARES: Mapping[str, tuple[str, Callable[[Mapping[str, Any], Mapping[str, Any]], float]]] = {
    "macs": ("MACs kept, % of dense", lambda dense, row: 100 * row[f"macs{RATIO}"]),
    "time": ("time, % of dense", lambda dense, row: 100 * row["latency_ms"] / dense["latency_ms"]),
}
"""Figure -> label of its horizontal axis, and its value from the figures of the dense and of another network."""
LEAST = 4.0
"""Least range of the horizontal axis, percent: differences below are none."""


def check_comparable(records: Sequence[RunRecord]) -> None:
    """Refuse runs that one table cannot compare.

    Args:
        records: The runs.

    Raises:
        UserError: Fewer than two or too many runs, one without a result, or different primary figures.
    """
    if not 2 <= len(records) <= len(LINES):
        raise UserError(f"--compare got {len(records)} runs: expected 2 to {len(LINES)}")
    unfinished = [record.name for record in records if record.result is None]
    if unfinished:
        raise UserError(f"--compare: {', '.join(unfinished)} has no result.json: give finished runs of fit or prune")
    primaries = {record.primary for record in records}
    if len(primaries) > 1:
        raise UserError(f"--compare: the runs report {', '.join(sorted(primaries))}: expected the same primary figure")


def runs_page(records: Sequence[RunRecord]) -> str:
    """Return the page.

    Args:
        records: The runs, checked by `check_comparable`.
    """
    with styled():
        figures = [
            markup.figure(svg(drawn, name, TEXTS[name][0]), *TEXTS[name]) for name, drawn in runs_figures(records)
        ]
    names = ", ".join(record.name for record in records)
    parts = [
        markup.heading(f"{len(records)} runs compared", 1),
        markup.paragraph("; ".join({title(result): None for result in _results_of(records)}), "about"),
        markup.block([markup.paragraph(text) for text in _verdict(records)], "verdict"),
        _results(records),
        markup.heading("Figures"),
        markup.block(figures, "figures"),
        markup.heading("What differs in their configurations"),
        _configurations(records),
    ]
    return markup.page(f"Runs compared: {names}", parts)


def runs_figures(records: Sequence[RunRecord]) -> Iterator[tuple[str, Figure]]:
    """Draw the figures; use and save them within `drawing.styled`.

    Args:
        records: The runs.

    Yields:
        Name and figure.
    """
    figure, results = records[0].figure, _results_of(records)
    yield from ((name, _against(records, name)) for name in SHARES)
    courses = {_numbered(i, record): best_so_far(record.candidates, record.primary) for i, record in enumerate(records)}
    points = {name: [*enumerate(course, 1)] for name, course in courses.items() if course}
    if points:
        label = f"{figure.label} on the holdout{unit_of(figure)}"
        yield "search", lines_figure(points, "candidates evaluated", label, figure)
    groups = [result.get("groups") for result in results]
    if groups[0] and all(each == groups[0] for each in groups):
        yield "widths", _widths(results, groups[0])


def _widths(results: Sequence[Mapping[str, Any]], dense: Mapping[str, int]) -> Figure:
    """Draw the share of its channels that each group keeps, one run above the other."""
    drawing, axes = canvas(len(results), 1.3 + 0.65 * len(results), sharex=True)
    for number, (each, result) in enumerate(zip(axes, results, strict=True), 1):
        kept = [100 * width / most for width, most in zip(result["pruned"]["widths"], dense.values(), strict=True)]
        each.bar(range(1, len(kept) + 1), kept, width=0.8, color=OURS)
        each.set(ylim=(0, 105), yticks=(0, 50, 100), ylabel=f"{number}, %")
        each.grid(axis="x", visible=False)
    name_positions(axes[-1], list(dense))
    axes[-1].set_xlabel("channel groups, in order of computation")
    return drawing


def differences(records: Sequence[RunRecord]) -> list[list[str]]:
    """Return the keys of the configurations whose values differ, with each run's value.

    Args:
        records: The runs.
    """
    found = [{".".join(key): value for key, value in flat(record.config).items()} for record in records]
    keys = dict.fromkeys(key for each in found for key in each)
    rows = [
        [f"`{key}`", *(_written(each[key]) if key in each else "" for each in found)]
        for key in keys
        if not key.startswith("run.")
    ]
    return [row for row in rows if len({*row[1:]}) > 1]


def _written(value: Any) -> str:
    """Return a value as a configuration has it."""
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


def _configurations(records: Sequence[RunRecord]) -> str:
    rows = differences(records)
    if not rows:
        return markup.paragraph("Nothing.")
    return markup.table(["key", *(record.name for record in records)], rows, kind="facts")


def _against(records: Sequence[RunRecord], shares: str) -> Figure:
    """Draw the score after fine-tuning against a share of the dense network's cost, a key of `SHARES`."""
    drawing, (axes,) = canvas()
    figure, (label, share) = records[0].figure, SHARES[shares]
    looks = (("uniform", UNIFORM, "s", "uniform", -11), ("pruned", OURS, "o", "ours", 4))  # numbers below and above
    for name, colour, shape, legible, above in looks:
        axes.plot([], [], shape, color=colour, label=legible)
        for place, numbers in _places(records, name, share).items():
            axes.scatter(*place, s=34, color=colour, marker=shape, zorder=3)
            axes.annotate(numbers, place, (5, above), textcoords="offset points", color=colour, fontsize=8.5)
    for value in {result["dense"][f"{records[0].primary}_test"] for result in _results_of(records)}:
        axes.axhline(value, color=MUTED, linewidth=1, linestyle="--", zorder=1)
    axes.plot([], [], "--", color=MUTED, linewidth=1, label="dense")
    axes.set(xlabel=label, ylabel=f"{figure.label} on the test set{unit_of(figure)}")
    _limits(axes, figure.higher_is_better)
    legend(drawing, axes, order=("ours", "uniform", "dense"))
    return drawing


def _places(
    records: Sequence[RunRecord], name: str, share: Callable[[Mapping[str, Any], Mapping[str, Any]], float]
) -> dict[tuple[float, float], str]:
    """Return where to draw one of the networks of all runs, and the numbers of the runs at each place."""
    figure, found = records[0].figure, dict[tuple[float, float], str]()
    for number, result in enumerate(_results_of(records), 1):
        if name in result:
            score = round(result[name][f"{records[0].primary}_test_after"], figure.digits)
            place = round(share(result["dense"], result[name]), 1), score
            found[place] = f"{found[place]}, {number}" if place in found else str(number)
    return found


def _limits(axes: Axes, higher_is_better: bool) -> None:
    """Leave room for labels, do not magnify small differences of shares, and turn the better end up."""
    axes.margins(0.12)
    low, high = axes.get_xlim()
    if high - low < LEAST:
        axes.set_xlim((low + high - LEAST) / 2, (low + high + LEAST) / 2)
    if not higher_is_better:
        axes.invert_yaxis()


def _verdict(records: Sequence[RunRecord]) -> Iterator[str]:
    figure, results = records[0].figure, _results_of(records)
    tested = [result["pruned"][f"{records[0].primary}_test_after"] for result in results]
    shares = [result["pruned"]["latency_ms"] / result["dense"]["latency_ms"] for result in results]
    best = max(range(len(records)), key=lambda i: (figure.merit(round(tested[i], figure.digits)), -shares[i]))
    fastest = min(range(len(records)), key=lambda i: shares[i])
    said = [f"{figure.with_unit(score)} {figure.label}, {percent(share, 0)} of the dense network's time"
            for score, share in zip(tested, shares, strict=True)]  # fmt: skip
    text = f"The best network after fine-tuning is that of {records[best].name}: {said[best]}."
    other = f" The fastest is that of {records[fastest].name}: {said[fastest]}."
    yield text + (" It is also the fastest." if best == fastest else other)
    if len({(result["network"], result["dataset"]) for result in results}) > 1:
        yield "The runs are of different networks or data: compare differences to the dense network, not figures."


def _results(records: Sequence[RunRecord]) -> str:
    """The table of all runs."""
    unit = unit_of(records[0].figure)
    scores = [f"dense{unit}", f"uniform{unit}", f"ours{unit}", "minus dense"]
    headings = ["run", *scores, "MACs kept", "parameters kept", "time", "evaluations", "search, s"]
    rows = [
        [_numbered(number, record), *_cells(record, result)]
        for number, (record, result) in enumerate(zip(records, _results_of(records), strict=True))
    ]
    return markup.table(headings, rows)


def _cells(record: RunRecord, result: Mapping[str, Any]) -> list[str]:
    """The cells of a run, without its name."""
    dense, ours, figure = result["dense"], result["pruned"], record.figure
    searches = [stage["search"] for stage in result.get("stages", ())] or [result["search"]]
    evaluations, seconds = ([each[name] for each in searches if name in each] for name in ("evaluations", "seconds"))
    reference, after = dense[f"{record.primary}_test"], ours[f"{record.primary}_test_after"]
    uniform = figure.text(result["uniform"][f"{record.primary}_test_after"]) if "uniform" in result else ""
    return [
        figure.text(reference), uniform, figure.text(after), figure.text(after - reference, sign=True),
        percent(ours[f"macs{RATIO}"]), percent(ours[f"params{RATIO}"]),
        percent(ours["latency_ms"] / dense["latency_ms"], 0),
        str(sum(evaluations)) if evaluations else "", f"{sum(seconds):.0f}" if seconds else "",
    ]  # fmt: skip


def _numbered(position: int, record: RunRecord) -> str:
    return f"{position + 1} {record.name}"


def _results_of(records: Sequence[RunRecord]) -> list[Mapping[str, Any]]:
    return [record.result for record in records if record.result is not None]
