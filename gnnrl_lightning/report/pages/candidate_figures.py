"""Figures of a search: what its candidates cost and score, and who proposed them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gnnrl_lightning.objective import Figure as Scale
from gnnrl_lightning.report.comparison import in_words
from gnnrl_lightning.report.costs import RATIO, cost_names
from gnnrl_lightning.report.pages.drawing import (
    INK,
    MUTED,
    OTHER,
    OURS,
    PAPER,
    START,
    UNIFORM,
    canvas,
    legend,
    literal,
    logarithmic,
    whole_numbers,
)
from gnnrl_lightning.report.pages.records import RunRecord
from gnnrl_lightning.report.pages.words import cost_name, unit_of


@dataclass(frozen=True)
class Mark:
    """How candidates of some proposers are drawn."""

    label: str
    colour: str
    shape: str
    size: float


STARTING = Mark("starting candidates", START, "^", 36)
MARKS = {"agent": Mark("agent", OURS, "o", 26), "uniform": Mark("uniform", UNIFORM, "s", 42)}
"""Proposer -> its mark; others propose starting candidates, or are search methods."""
REWARD = Scale("reward", higher_is_better=True)


def candidates_figure(record: RunRecord) -> Figure | None:
    """Score against cost of all candidates, their Pareto front, and the delivered one."""
    points = [item for item in record.candidates if record.primary in item["scores"]]
    if not points:
        return None
    metric, figure = _spread_metric(points), record.figure
    values = [_number(item["scores"][record.primary], figure) for item in points]
    shares = [100 * item[f"{metric}{RATIO}"] for item in points]
    drawing, (axes,) = canvas()
    _scatter(axes, points, shares, values)
    scored = [i for i, item in enumerate(points) if not item["dropped"]]
    found = pareto_front([shares[i] for i in scored], [figure.merit(values[i]) for i in scored])
    front = [scored[i] for i in found]
    axes.plot(
        [shares[i] for i in front], [values[i] for i in front],
        color=MUTED, linewidth=1, drawstyle="steps-post", zorder=1, label="Pareto front",
    )  # fmt: skip
    if record.result is not None:
        pruned = record.result["pruned"]
        axes.scatter(
            [100 * pruned[f"{metric}{RATIO}"]], [pruned[f"{record.primary}_search"]],
            s=150, facecolors="none", edgecolors=INK, linewidths=1.3, zorder=4, label="delivered",
        )  # fmt: skip
    axes.set(xlabel=f"{cost_name(metric)} kept, % of dense", ylabel=_on_holdout(record))
    _better_up(axes, values, figure)
    legend(drawing, axes)
    return drawing


def search_figure(record: RunRecord) -> Figure | None:
    """Reward of each candidate in the order of evaluation, by proposer, and the best so far."""
    points = list(record.candidates)
    if not points:
        return None
    rewards = [_number(item["merit"][0], REWARD) for item in points]
    order = [*range(1, len(points) + 1)]
    drawing, (axes,) = canvas()
    _scatter(axes, points, order, rewards)
    kept = [-math.inf if item["dropped"] else reward for item, reward in zip(points, rewards, strict=True)]
    best = [*accumulate(kept, max)]
    axes.plot(order, best, color=INK, linewidth=1.2, drawstyle="steps-post", zorder=1, label="best so far")
    reward = f"reward ({record.reward})" if record.reward else _on_holdout(record)
    axes.set(xlabel="candidate, in order of evaluation", ylabel=reward)
    _better_up(axes, rewards, REWARD)
    whole_numbers(axes)
    legend(drawing, axes)
    return drawing


def pareto_front(costs: Sequence[float], merits: Sequence[float]) -> list[int]:
    """Return the indices of the points that no other point beats in both, in order of their costs.

    Args:
        costs: Costs, lower is better.
        merits: Merits, higher is better.
    """
    front: list[int] = []
    for i in sorted(range(len(costs)), key=lambda i: (costs[i], -merits[i])):
        if not front or merits[i] > merits[front[-1]]:
            front.append(i)
    return front


def _spread_metric(points: Sequence[Mapping[str, Any]]) -> str:
    """Return the first cost in which candidates differ about as much as in any.

    For one budget that is not the limited one, which all of them meet almost exactly; for a range of budgets it is.
    """
    names = cost_names({**points[0]["costs"], **points[0]})
    shares = {name: [item[f"{name}{RATIO}"] for item in points] for name in names}
    spread = {name: max(each) - min(each) for name, each in shares.items()}
    return next(name for name in names if spread[name] >= max(spread.values()) / 2)


def _scatter(axes: Axes, points: Sequence[Mapping[str, Any]], across: Sequence[float], values: Sequence[float]) -> None:
    """Draw candidates by proposer; hollow marks are estimates of dropped ones."""
    proposers = Counter(item["proposer"] for item in points)
    known = {name: _mark(name, count, len(points)) for name, count in proposers.items()}
    marks = [known[item["proposer"]] for item in points]
    for mark in sorted(set(known.values()), key=lambda mark: (mark == MARKS["uniform"], mark == STARTING, mark.label)):
        own = [i for i, each in enumerate(marks) if each is mark]
        if own:
            faces = ["none" if points[i]["dropped"] else mark.colour for i in own]
            edges = [mark.colour if points[i]["dropped"] else PAPER for i in own]
            axes.scatter(
                [across[i] for i in own], [values[i] for i in own],
                s=mark.size, marker=mark.shape, c=faces, edgecolors=edges, linewidths=0.8, zorder=3,
            )  # fmt: skip
            axes.scatter([], [], s=mark.size, marker=mark.shape, c=mark.colour, label=mark.label)
    if any(item["dropped"] for item in points):
        axes.scatter([], [], s=26, marker="o", c="none", edgecolors=MUTED, label="dropped, an estimate")


def _mark(proposer: str, count: int, total: int) -> Mark:
    """Return the mark of a proposer: each starting candidate has its own one, a search method proposes several."""
    if proposer in MARKS or (count == 1 and total > 1):
        return MARKS.get(proposer, STARTING)
    return Mark(literal(in_words(proposer)), OTHER, "D", 24)


def _better_up(axes: Axes, values: Sequence[float], scale: Scale) -> None:
    """Turn the better end of the vertical axis up; a linear one leaves out what is far worse and flattens the rest."""
    if scale.logarithmic:
        logarithmic(axes)
    if not scale.higher_is_better:
        axes.invert_yaxis()
    merits = [scale.merit(value) for value in values if math.isfinite(value)]
    if scale.logarithmic or not merits:
        return
    best, floor = max(merits), min(merits)
    reach = 4 * (best - median(merits))
    if 0 < reach < best - floor:
        floor = best - reach
        left_out = sum(merit < floor for merit in merits)
        said = f"{left_out} worse {'one' if left_out == 1 else 'ones'} below"
        axes.set_title(said, loc="right", fontsize=8, color=MUTED)
    margin = 0.06 * (best - floor) or 0.5
    limits = floor - margin, best + margin
    axes.set_ylim(*(limits if scale.higher_is_better else (-merit for merit in limits)))


def _number(value: float | None, scale: Scale) -> float:
    """Return a value of the journal, where null stands for the worst."""
    if value is None:
        return -math.inf if scale.higher_is_better else math.inf
    return value


def _on_holdout(record: RunRecord) -> str:
    return f"{record.figure.label} on the holdout{unit_of(record.figure)}"
