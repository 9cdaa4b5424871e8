"""Tables of a comparison: means of each method, and paired differences between the agent and each of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from gnnrl_lightning.objective import Figure
from gnnrl_lightning.objective.protocol import primary_figure
from gnnrl_lightning.report.costs import RATIO
from gnnrl_lightning.report.paired import Spread, paired_difference

STAGES = {"search": "search", "test_before": "test", "test_after": "tuned"}
"""Split and phase of the primary figure -> heading."""
WHERE = {
    "search": "on the holdout",
    "test_before": "on the test set, before fine-tuning",
    "test_after": "on the test set, after fine-tuning",
}
"""Split and phase of the primary figure -> the same in words."""
LATENCY = f"latency_measured{RATIO}"
"""Key of a row: measured latency, relative to that of the dense network."""
SHARES = {f"macs{RATIO}": "MACs", LATENCY: "time"}
"""Shares of the dense network's cost in the table -> heading."""
MEANS = ("evaluations", "examples", "seconds")
"""Figures whose mean is reported, besides the costs."""


def headings(primary: str) -> dict[str, str]:
    """Key of a row -> its heading, of the primary figure with this name."""
    return {f"{primary}_{stage}": heading for stage, heading in STAGES.items()}


def where(key: str, primary: str) -> str:
    """Say on which examples, and before or after fine-tuning, a key of a row is measured."""
    return WHERE[key.removeprefix(f"{primary}_")]


def summarise(rows: Sequence[Mapping[str, Any]], agent: str | None, primary: str) -> dict[str, Any]:
    """Means over seeds, and paired differences.

    Args:
        rows: Figures of the runs: `method`, `seed` (None for deterministic methods), `budget` and metrics.
        agent: The method to compare with every other one; None: there is none.
        primary: Name of the objective's primary figure.

    Returns:
        `summary`: for each budget and method the mean and the standard deviation of each metric, and mean costs.
        `paired`: for each budget, other method and metric the mean of agent minus method, and its 95 % interval.
    """
    summary, paired = [], []
    for budget in _distinct(row["budget"] for row in rows):
        here = [row for row in rows if row["budget"] == budget]
        for method in _distinct(row["method"] for row in here):
            of_method = [row for row in here if row["method"] == method]
            metrics = [metric for metric in headings(primary) if all(metric in row for row in of_method)]
            ratios = [name for name in of_method[0] if name.endswith(RATIO)]
            means = {name: Spread.of([row[name] for row in of_method]).mean for name in (*MEANS, *ratios)}
            spreads = {metric: asdict(Spread.of([row[metric] for row in of_method])) for metric in metrics}
            summary.append({"budget": budget, "method": method, **means, **spreads})
            if agent is None or method == agent:
                continue
            of_agent = [row for row in here if row["method"] == agent]
            for metric in metrics:
                first = _by_seed(of_agent, metric)
                second = _by_seed(of_method, metric)
                difference = paired_difference(first, second[None] if None in second else second)
                if difference is not None:
                    key = {"budget": budget, "agent": agent, "method": method, "metric": metric}
                    paired.append(key | asdict(difference))
    return {"summary": summary, "paired": paired}


def _by_seed(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[Any, float]:
    return {row["seed"]: row[metric] for row in rows if metric in row}


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def comparison_tables(figures: Mapping[str, Any]) -> list[Table]:
    """Lay out a comparison.

    Args:
        figures: The contents of compare.json.

    Returns:
        For each budget a table of the methods' means and, if there is an agent, one of paired differences; and the
        methods that do not support the network, if there are any.
    """
    tables, found = [], headings(figures["objective"]["primary"])
    for budget in _distinct(entry["budget"] for entry in figures["summary"]):
        summary = [entry for entry in figures["summary"] if entry["budget"] == budget]
        paired = [entry for entry in figures["paired"] if entry["budget"] == budget]
        metrics = {key: text for key, text in found.items() if any(key in entry for entry in summary)}
        tables.append(_means(figures, budget, summary, metrics))
        if paired:
            tables.append(_differences(figures, paired, budget, metrics))
    if figures["refused"]:
        refused = Table("method", "budget", "reason", title="not compared")
        for entry in {(row["method"], str(row["budget"]), row["refused"]): None for row in figures["refused"]}:
            refused.add_row(*entry)
        tables.append(refused)
    return tables


def _means(
    figures: Mapping[str, Any], budget: Any, summary: Sequence[Mapping[str, Any]], metrics: Mapping[str, str]
) -> Table:
    primary, figure = primary_figure(figures)
    dense = figure.text(figures["dense"][f"{primary}_test"])
    runs = max(entry[next(iter(metrics))]["n"] for entry in summary)
    table = Table(
        title=f"{figures['network']} on {figures['dataset']}, budget {budget}; cost in evaluations",
        caption=f"{figure.heading}: mean ± standard deviation over {runs} {'seeds' if runs > 1 else 'seed'}; "
        f"{figures['test_examples']} test examples ({figures['test_half']}), dense {dense}",
    )
    shares = {key: heading for key, heading in SHARES.items() if all(key in entry for entry in summary)}
    rows = []
    for entry in summary:
        cells = [f"{entry[key]:.1%}" for key in shares]
        cells += [_spread(entry[metric], figure) if metric in entry else "" for metric in metrics]
        rows.append([entry["method"], f"{entry['evaluations']:.0f}", f"{entry['seconds']:.0f}", *cells])
    return _filled(table, ["method", "cost", "s", *shares.values(), *metrics.values()], rows)


def _differences(
    figures: Mapping[str, Any], paired: Sequence[Mapping[str, Any]], budget: Any, metrics: Mapping[str, str]
) -> Table:
    figure = primary_figure(figures)[1]
    table = Table(
        title=f"{paired[0]['agent']} minus each method, budget {budget}",
        caption=f"{figure.heading}, mean over seeds and its 95 % confidence interval",
    )
    rows = []
    for method in _distinct(entry["method"] for entry in paired):
        by_metric = {entry["metric"]: entry for entry in paired if entry["method"] == method}
        found = (_interval(by_metric[metric], figure) if metric in by_metric else "" for metric in metrics)
        rows.append([method, *found])
    return _filled(table, ["method", *metrics.values()], rows)


def in_words(method: str) -> str:
    """Return the name of a method for readers; an import path stays as it is."""
    return method if "." in method else method.replace("_", " ")


def as_subject(method: str) -> str:
    """Return the name of a method within a sentence."""
    return "the agent" if method == "agent" else in_words(method)


def _filled(table: Table, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Add columns and rows to a table; in a narrow terminal, a method's name has several lines."""
    for head in heads:
        table.add_column(head, justify="left" if head == heads[0] else "right", overflow="fold")
    for method, *cells in rows:
        table.add_row(in_words(method), *cells)
    return table


def _spread(spread: Mapping[str, Any], figure: Figure) -> str:
    return figure.text(spread["mean"]) + ("" if spread["sd"] is None else f"\n±{figure.text(spread['sd'])}")


def _interval(difference: Mapping[str, Any], figure: Figure) -> str:
    mean, low, high = (
        None if difference[name] is None else figure.text(difference[name], sign=True)
        for name in ("mean", "low", "high")
    )
    return f"{mean}" if low is None else f"{mean} [{low}, {high}]"


def run_line(row: Mapping[str, Any], objective: Mapping[str, Any]) -> str:
    """Format a finished run as one line.

    Args:
        row: Its figures.
        objective: The objective's record, as in result.json.
    """
    primary, figure = primary_figure({"objective": objective})
    name = f"{row['method']}, budget {row['budget']}" + ("" if row["seed"] is None else f", seed {row['seed']}")
    if "refused" in row:
        return f"{name}: {row['refused']}"
    found = ", ".join(
        f"{heading} {figure.text(row[metric])}" for metric, heading in headings(primary).items() if metric in row
    )
    return f"{name}: {row['evaluations']} evaluations, {row['seconds']:.1f} s, {figure.label} {found}"
