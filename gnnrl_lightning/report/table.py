"""The table at the end of a run: dense, uniform pruning at the same budget, and ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

ROWS = (("dense", "dense"), ("uniform", "uniform"), ("pruned", "ours"))


def result_table(result: Mapping[str, Any], batch: int) -> Table:
    """Lay out the figures of a run.

    Args:
        result: The figures as in result.json: MACs of one image, latency in milliseconds, top-1 in percent.
        batch: Images of the batch whose latency was measured.

    Returns:
        A table with one row for each network.
    """
    budget = ", ".join(f"{name} {value:g}" for name, value in result["budget"].items() if value is not None)
    table = Table(title=f"{result['network']} on {result['dataset']}, budget: {budget}")
    table.add_column("network")
    for name in ("MACs", "kept", "parameters", "kept", f"ms / {batch} images", "top-1 as pruned", "top-1"):
        table.add_column(name, justify="right")
    for key, label in ROWS:
        table.add_row(label, *_cells(result[key], result["dense"]))
    return table


def _cells(row: Mapping[str, Any], dense: Mapping[str, Any]) -> list[str]:
    before = row.get("top1_test_before")
    after = row["top1_test"] if before is None else row["top1_test_after"]
    return [
        f"{row['macs']:,}",
        f"{row['macs'] / dense['macs']:.1%}",
        f"{row['params']:,}",
        f"{row['params'] / dense['params']:.1%}",
        f"{row['latency_ms']:.2f}",
        "" if before is None else f"{before:.2f} %",
        f"{after:.2f} %",
    ]


def print_result(result: Mapping[str, Any], batch: int, console: Console | None = None) -> None:
    """Print the table and who found the network.

    Args:
        result: The figures as in result.json.
        batch: Images of the batch whose latency was measured.
        console: Where to print; standard output by default.
    """
    console = console or Console()
    console.print(result_table(result, batch))
    search = result["search"]
    agent = search["agent_best"]
    best = "none" if agent is None else f"{agent:.2f} %"
    console.print(
        f"found by {search['found_by']} in {search['evaluations']} evaluations, {search['seconds']:.0f} s; "
        f"top-1 on the search split {result['pruned']['top1_search']:.2f} %, the agent's own best {best}"
    )
