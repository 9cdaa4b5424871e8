"""The costs among the figures of a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RATIO = "_ratio"
"""Suffix of a metric's name for its ratio to the dense network's cost."""

PREDICTED = "latency"
"""Name of the metric that predicts the latency."""

TIME_SAVED = 0.5
"""Smallest share of the saved MACs that should be saved of the time, too."""

TIME_HINT = "`budget.latency` limits the time itself"


def saves_little_time(dense: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """Whether a pruned network saves less of the time than `TIME_SAVED` of the share that it saves of the MACs."""
    kept, taken = (ours[name] / dense[name] for name in ("macs", "latency_ms"))
    return 1 - taken < TIME_SAVED * (1 - kept)


def latency_batch(result: Mapping[str, Any]) -> int:
    """Return the examples of the batch whose latency was measured; 64 in results of releases that did not note it."""
    return result.get("latency", {}).get("batch_size", 64)


def latency_line(result: Mapping[str, Any]) -> str | None:
    """Say whether a limit on the latency is met, and how good its prediction was; None if there is no limit.

    Args:
        result: The figures as in result.json.
    """
    found = result.get("latency", {})
    if "limit" not in found:
        return None
    dense, checks = result["dense"]["latency_ms"], len(result["search"].get("latency_checks", ()))
    text = (
        f"latency: at most {found['limit']:.4g} ms ({found['limit'] / dense:.1%} of the dense network's) was asked "
        f"for, {found['measured']:.4g} ms ({found['measured'] / dense:.1%}) is measured"
    )
    if found["mean_error"] is None:
        return f"{text} here; it was predicted from {found['table']}"
    return (
        f"{text}; predicted with a mean error of {found['mean_error']:.1%} for {found['networks']} networks, "
        f"{checks} candidate{'s' if checks > 1 else ''} measured after the search"
    )


def alike_line(result: Mapping[str, Any]) -> str | None:
    """Say of how many candidates the fastest is delivered; None if the best one is, whatever its time.

    Args:
        result: The figures as in result.json.
    """
    candidates = result["search"].get("alike", ())
    times = [each["milliseconds"] for each in candidates if each["alike"]]
    if len(times) < 2:
        return None
    worse = sum(each["alike"] is False for each in candidates)
    text = (
        f"delivered is the fastest of {len(candidates)} candidates that is as good as the best one on the holdout: "
        f"{min(times):.4g} ms before fine-tuning, the best one {times[0]:.4g} ms"
    )
    return text + (f"; {worse} faster {'one is' if worse == 1 else 'ones are'} worse" if worse else "")


def cost_names(row: Mapping[str, Any]) -> list[str]:
    """Return the names of the metrics in a row of figures: those with a ratio to the dense network's cost."""
    return [name for name in row if f"{name}{RATIO}" in row]


def shown_costs(result: Mapping[str, Any]) -> list[str]:
    """Return the names of the metrics in a table of results, beside the measured time.

    The predicted latency is left out, unless it is that of another machine, by a table of the user's own.

    Args:
        result: The figures as in result.json.
    """
    elsewhere = result.get("latency", {}).get("table") is not None
    return [name for name in cost_names(result["pruned"]) if name != PREDICTED or elsewhere]


def cost_figures(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the costs in a row of figures, each with its ratio to the dense network's cost."""
    return {key: row[key] for name in cost_names(row) for key in (name, f"{name}{RATIO}")}


def milliseconds(latency: float) -> str:
    """Format a latency in milliseconds: two digits behind the point, three below 1 ms."""
    return f"{latency:.{2 if latency >= 1 else 3}f}"


def unit_prefix(size: float) -> tuple[float, str]:
    """Return the largest unit of at most this size, 1e9, 1e6, 1e3 or 1, and its prefix, which is empty for 1."""
    return next(((unit, prefix) for unit, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if size >= unit), (1.0, ""))


def readable(cost: float) -> str:
    """Format a cost with four digits and a unit prefix: 40.55 M."""
    unit, prefix = unit_prefix(abs(cost))
    return f"{cost / unit:#.4g} {prefix}" if prefix else f"{cost:.4g}"
