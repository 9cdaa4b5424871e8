"""What a comparison says: means of each method, and paired differences between the agent and each of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from gnnrl_lightning.report.costs import RATIO
from gnnrl_lightning.report.paired import Spread, paired_difference

METRICS = {"top1_search": "search", "top1_test_before": "test", "top1_test_after": "tuned"}
"""Key of a row -> its heading."""
MEANS = ("evaluations", "images", "seconds")
"""Figures whose mean is told, beside the costs."""


def summarise(rows: Sequence[Mapping[str, Any]], agent: str | None) -> dict[str, Any]:
    """Means over seeds, and paired differences.

    Args:
        rows: Figures of the runs: `method`, `seed` (None where there is no chance in a method), `budget` and metrics.
        agent: The method that is compared with each other one; None: there is none.

    Returns:
        `summary`: for each budget and method the mean and the standard deviation of each metric, and mean costs.
        `paired`: for each budget, other method and metric the mean of agent minus method, and its 95 % interval.
    """
    summary, paired = [], []
    for budget in _distinct(row["budget"] for row in rows):
        here = [row for row in rows if row["budget"] == budget]
        for method in _distinct(row["method"] for row in here):
            of_method = [row for row in here if row["method"] == method]
            metrics = [metric for metric in METRICS if all(metric in row for row in of_method)]
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
        figures: What compare.json holds.

    Returns:
        For each budget a table of the methods' means and, if there is an agent, one of paired differences; and the
        methods that could not do the network, if there are any.
    """
    tables = []
    for budget in _distinct(entry["budget"] for entry in figures["summary"]):
        summary = [entry for entry in figures["summary"] if entry["budget"] == budget]
        paired = [entry for entry in figures["paired"] if entry["budget"] == budget]
        metrics = [metric for metric in METRICS if any(metric in entry for entry in summary)]
        tables.append(_means(figures, budget, summary, metrics))
        if paired:
            tables.append(_differences(paired, budget, metrics))
    if figures["refused"]:
        refused = Table("method", "budget", "reason", title="not compared")
        for entry in {(row["method"], str(row["budget"]), row["refused"]): None for row in figures["refused"]}:
            refused.add_row(*entry)
        tables.append(refused)
    return tables


def _means(figures: Mapping[str, Any], budget: Any, summary: Sequence[Mapping[str, Any]], metrics: list[str]) -> Table:
    table = Table(
        title=f"{figures['network']} on {figures['dataset']}, budget {budget}; cost in evaluations",
        caption=f"top-1 in %: mean (standard deviation over seeds); {figures['test_images']} test images "
        f"({figures['test_half']}), dense {figures['dense']['top1_test']:.2f}",
    )
    table.add_column("method", no_wrap=True)
    for name in ("runs", "cost", "s", *(METRICS[metric] for metric in metrics)):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in summary:
        cells = [_spread(entry[metric]) if metric in entry else "" for metric in metrics]
        runs = str(entry[metrics[0]]["n"])
        table.add_row(entry["method"], runs, f"{entry['evaluations']:.0f}", f"{entry['seconds']:.1f}", *cells)
    return table


def _differences(paired: Sequence[Mapping[str, Any]], budget: Any, metrics: list[str]) -> Table:
    table = Table(
        title=f"{paired[0]['agent']} minus each method, budget {budget}",
        caption="points of top-1, mean over seeds and its 95 % confidence interval",
    )
    table.add_column("method", no_wrap=True)
    for metric in metrics:
        table.add_column(METRICS[metric], justify="right", no_wrap=True)
    for method in _distinct(entry["method"] for entry in paired):
        by_metric = {entry["metric"]: entry for entry in paired if entry["method"] == method}
        table.add_row(method, *(_interval(by_metric[metric]) if metric in by_metric else "" for metric in metrics))
    return table


def _spread(spread: Mapping[str, Any]) -> str:
    return f"{spread['mean']:.2f}" + ("" if spread["sd"] is None else f" ({spread['sd']:.2f})")


def _interval(difference: Mapping[str, Any]) -> str:
    mean = f"{difference['mean']:+.2f}"
    return mean if difference["low"] is None else f"{mean} [{difference['low']:+.2f}, {difference['high']:+.2f}]"


def run_line(row: Mapping[str, Any]) -> str:
    """One line on a run that has finished."""
    name = f"{row['method']}, budget {row['budget']}" + ("" if row["seed"] is None else f", seed {row['seed']}")
    if "refused" in row:
        return f"{name}: {row['refused']}"
    top1 = ", ".join(f"{heading} {row[metric]:.2f}" for metric, heading in METRICS.items() if metric in row)
    return f"{name}: {row['evaluations']} evaluations, {row['seconds']:.1f} s, top-1 {top1}"
