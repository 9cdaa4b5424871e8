"""A page that compares the results of several runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.report.costs import RATIO
from gnnrl_lightning.report.pages import markup
from gnnrl_lightning.report.pages.comparison_figures import LINES, best_so_far, lines_figure
from gnnrl_lightning.report.pages.drawing import MUTED, OURS, UNIFORM, canvas, legend, styled, svg
from gnnrl_lightning.report.pages.network_figures import name_positions
from gnnrl_lightning.report.pages.records import RunRecord
from gnnrl_lightning.report.pages.words import percent, title

TEXTS = {
    "macs": ("Score against MACs", "After fine-tuning, on the test set. Numbers are those of the table."),
    "time": ("Score against time", "After fine-tuning; time of a forward pass, measured in each run."),
    "search": ("The searches", "Score on the holdout of the best candidate so far."),
    "widths": ("Widths", "Share of its channels that each group keeps, by run."),
}
"""Figure -> heading and caption."""


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
    yield "macs", _against(records, "MACs kept, % of dense", lambda result, row: 100 * row[f"macs{RATIO}"])
    yield (
        "time",
        _against(
            records, "time, % of dense", lambda result, row: 100 * row["latency_ms"] / result["dense"]["latency_ms"]
        ),
    )
    courses = {_numbered(i, record): best_so_far(record.candidates, record.primary) for i, record in enumerate(records)}
    points = {name: [*enumerate(course, 1)] for name, course in courses.items() if course}
    if points:
        unit = f", {figure.unit}" if figure.unit else ""
        yield "search", lines_figure(points, "candidates evaluated", f"{figure.label} on the holdout{unit}", figure)
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
    flat = [_flat(record.config) for record in records]
    keys = dict.fromkeys(key for each in flat for key in each)
    rows = [[f"`{key}`", *(str(each.get(key, "")) for each in flat)] for key in keys if not key.startswith("run.")]
    return [row for row in rows if len({*row[1:]}) > 1]


def _configurations(records: Sequence[RunRecord]) -> str:
    rows = differences(records)
    if not rows:
        return markup.paragraph("Nothing.")
    return markup.table(["key", *(record.name for record in records)], rows, kind="facts")


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(config, Mapping) or not config:
        return {prefix: config}
    parts = (_flat(part, f"{prefix}.{name}" if prefix else str(name)) for name, part in config.items())
    return {key: value for part in parts for key, value in part.items()}


def _against(records: Sequence[RunRecord], label: str, share: Any) -> Figure:
    """Draw the score after fine-tuning against a share of the dense network's cost, ours numbered."""
    drawing, (axes,) = canvas()
    figure, key = records[0].figure, f"{records[0].primary}_test_after"
    for name, colour, shape in (("uniform", UNIFORM, "s"), ("pruned", OURS, "o")):
        numbers: dict[tuple[float, float], list[str]] = {}  # runs at the same place share a label
        for number, result in enumerate(_results_of(records), 1):
            if name in result:
                place = round(share(result, result[name]), 1), round(result[name][key], figure.digits)
                numbers.setdefault(place, []).append(str(number))
        for place, own in numbers.items():
            axes.scatter(*place, s=34, color=colour, marker=shape, zorder=3)
            axes.annotate(", ".join(own), place, (5, 4), textcoords="offset points", color=colour, fontsize=8.5)
    dense = {result["dense"][f"{records[0].primary}_test"] for result in _results_of(records)}
    for value in dense:
        axes.axhline(value, color=MUTED, linewidth=1, linestyle="--", zorder=1)
    axes.plot([], [], "o", color=OURS, label="ours")
    axes.plot([], [], "s", color=UNIFORM, label="uniform")
    axes.plot([], [], "--", color=MUTED, linewidth=1, label="dense")
    axes.margins(0.12)
    low, high = axes.get_xlim()
    if high - low < LEAST:
        axes.set_xlim((low + high - LEAST) / 2, (low + high + LEAST) / 2)
    axes.set(xlabel=label, ylabel=f"{figure.label} on the test set" + (f", {figure.unit}" if figure.unit else ""))
    if not figure.higher_is_better:
        axes.invert_yaxis()
    legend(drawing, axes)
    return drawing


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
    primary, figure = records[0].primary, records[0].figure
    unit = f", {figure.unit}" if figure.unit else ""
    heads = [
        "run",
        f"dense{unit}",
        f"uniform{unit}",
        f"ours{unit}",
        "minus dense",
        "MACs kept",
        "parameters kept",
    ]
    heads += ["time", "evaluations", "search, s"]
    rows = []
    for i, (record, result) in enumerate(zip(records, _results_of(records), strict=True)):
        dense, ours, search = result["dense"][f"{primary}_test"], result["pruned"], result["search"]
        after = ours[f"{primary}_test_after"]
        uniform = figure.text(result["uniform"][f"{primary}_test_after"]) if "uniform" in result else ""
        rows.append(
            [_numbered(i, record), figure.text(dense), uniform, figure.text(after),
             figure.text(after - dense, sign=True), percent(ours[f"macs{RATIO}"]), percent(ours[f"params{RATIO}"]),
             percent(ours["latency_ms"] / result["dense"]["latency_ms"], 0), str(search.get("evaluations", "")),
             f"{search['seconds']:.0f}" if "seconds" in search else ""]
        )  # fmt: skip
    return markup.table(heads, rows)


def _numbered(position: int, record: RunRecord) -> str:
    return f"{position + 1} {record.name}"


def _results_of(records: Sequence[RunRecord]) -> list[Mapping[str, Any]]:
    return [record.result for record in records if record.result is not None]
