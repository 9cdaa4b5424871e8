"""The files of a pruned network: their sizes, and the scores of lossy formats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gnnrl_lightning.objective.protocol import primary_figure
from gnnrl_lightning.report.costs import readable

DROP = "drop"
"""Key in the figures of a lossy format."""

SHOWN = 5e-4
"""Smallest drop that is not written as zero."""


def lossy_formats(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the name of each lossy format -> its figures, see `gnnrl_lightning.job.lossy.format_figures`.

    Args:
        result: The figures as in result.json; those of earlier releases have none of formats.
    """
    return {name: row for name, row in result.get("formats", {}).items() if DROP in row}


def format_bytes(result: Mapping[str, Any]) -> dict[str, int]:
    """Return the name of each format -> the size of its files, bytes.

    Args:
        result: The figures as in result.json.
    """
    return {name: sum(row["files"].values()) for name, row in result.get("formats", {}).items()}


def files_line(result: Mapping[str, Any]) -> str | None:
    """Say how large the files are; None if the result does not tell.

    Args:
        result: The figures as in result.json.
    """
    sizes = [f"{name} {readable(size)}B" for name, size in format_bytes(result).items()]
    return f"files: {', '.join(sizes)}" if sizes else None


def lossy_line(result: Mapping[str, Any], name: str) -> str:
    """Say what a lossy format has on the holdout, beside the network itself.

    Args:
        result: The figures as in result.json.
        name: Name of the format.
    """
    primary, figure = primary_figure(result)
    row = result["formats"][name]
    lost = 0.0 if abs(row[DROP]) < SHOWN else row[DROP]  # no minus before zero
    return (
        f"{name}: {figure.label} on the holdout {figure.with_unit(row[f'{primary}_search'])}, a drop of "
        f"{lost:.1%} of the network's lead over guessing"
    )
