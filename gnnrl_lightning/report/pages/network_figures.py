"""Figures along the network: widths, costs and sensitivity of its parts, in order of computation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gnnrl_lightning.report.costs import latency_batch, unit_prefix
from gnnrl_lightning.report.pages.drawing import (
    DENSE,
    HEIGHT,
    OURS,
    SCALE,
    SHADE,
    UNIFORM,
    canvas,
    legend,
    literal,
    logarithmic,
    whole_numbers,
)
from gnnrl_lightning.report.pages.records import NETWORKS, RunRecord

LABELLED = 24
"""Maximum number of groups or layers that are labelled by name."""

OTHERS = "other_latency_ms"
"""Key of the predicted times of operators without multiply-accumulates in result.json."""

CHARACTERS = 40
"""Maximum length of all names together that are written horizontally."""

FEWEST = {-1.0: "no channel", 0.0: "one channel"}
"""Keep ratio of a sensitivity -> what it stands for, see `gnnrl_lightning.surrogate.sensitivity`."""


def widths_figure(record: RunRecord) -> Figure | None:
    """Width of every channel group along the network, and parts of masked weights, before and after."""
    result = record.result
    if result is None or "groups" not in result:
        return None
    rows = {name: result[name]["widths"] for name in ("uniform", "pruned") if name in result}
    masked = "masked" in result
    what = "channels, or parts of a masked weight" if masked else "channels"
    drawing = _along(list(result["groups"]), list(result["groups"].values()), rows, what)
    order = "channel groups, in order of computation"
    drawing.axes[0].set_xlabel(f"{order}; masked weights" if masked else order)
    return drawing


def layers_figure(record: RunRecord) -> Figure | None:
    """MACs of every layer along the network, before and after."""
    if record.result is None or "layers" not in record.result:
        return None
    layers = record.result["layers"]
    unit, prefix = unit_prefix(max(layer["macs"]["dense"] for layer in layers))
    rows = {name: [layer["macs"][name] / unit for layer in layers] for name in NETWORKS if name in layers[0]["macs"]}
    drawing = _along([layer["name"] for layer in layers], rows.pop("dense"), rows, f"{prefix}MACs of one example")
    drawing.axes[0].set_xlabel("layers, in order of computation")
    return drawing


def times_figure(record: RunRecord) -> Figure | None:
    """Predicted time of every layer along the network, before and after, and that of all other operators."""
    if record.result is None or OTHERS not in record.result:
        return None
    layers, others = record.result["layers"], record.result[OTHERS]
    rows = {
        name: [layer["latency_ms"][name] for layer in layers] + [others[name]] for name in NETWORKS if name in others
    }
    names = [*(layer["name"] for layer in layers), "others"]
    drawing = _along(names, rows.pop("dense"), rows, f"ms for {latency_batch(record.result)}")
    drawing.axes[0].set_xlabel("layers, in order of computation; all other operators")
    return drawing


def sensitivity_figure(record: RunRecord) -> Figure | None:
    """Loss from narrowing each group alone, at each measured keep ratio."""
    if record.losses is None or not len(record.losses.measured):
        return None
    measured, ratios = record.losses.measured, record.losses.ratios
    drawing, (axes,) = canvas(height=HEIGHT * (1.25 if len(measured) <= LABELLED else 1))
    numbers = [*range(1, len(measured) + 1)]
    lowest = min((value for row in measured for value in row if value > 0), default=1.0)
    for at in range(len(ratios)):
        colour = SCALE[round((len(SCALE) - 1) * (1 - at / max(1, len(ratios) - 1)))]
        label = FEWEST.get(ratios[at], f"{ratios[at]:.0%}")
        losses = [max(row[at], lowest) for row in measured]
        axes.plot(numbers, losses, color=colour, marker="osD^v"[at % 5], markersize=3.5, label=label)
    axes.set(xlabel="channel groups, in order of computation", ylabel="loss, narrowed alone")
    logarithmic(axes)
    result = record.result or {}
    names = result.get("search", {}).get("groups", result.get("groups"))  # of the last stage, if there are several
    name_positions(axes, list(names) if names else [str(number) for number in numbers])
    legend(drawing, axes, columns=5)
    return drawing


def _along(names: Sequence[str], dense: Sequence[float], rows: Mapping[str, Sequence[float]], label: str) -> Figure:
    """Draw a quantity along the network: dense as shaded bars, ours as bars, uniform pruning as lines."""
    labelled = len(names) <= LABELLED
    drawing, (axes,) = canvas(height=HEIGHT * (1.25 if labelled else 1))
    numbers = [*range(1, len(names) + 1)]
    wide, inner, edge = (0.84, 0.5, 0.5) if labelled else (1.0, 0.6, 0.0)
    axes.bar(numbers, dense, width=wide, color=SHADE, edgecolor=DENSE, linewidth=edge, label=NETWORKS["dense"])
    axes.bar(numbers, rows["pruned"], width=inner, color=OURS, label=NETWORKS["pruned"])
    if "uniform" in rows:
        left, right = ([number + side * wide / 2 for number in numbers] for side in (-1, 1))
        axes.hlines(
            rows["uniform"], left, right, color=UNIFORM, linewidth=1.8 if labelled else 1.2, label=NETWORKS["uniform"]
        )
    axes.set_ylabel(label)
    axes.grid(axis="x", visible=False)
    name_positions(axes, names)
    legend(drawing, axes, order=list(NETWORKS.values()))
    return drawing


def name_positions(axes: Axes, names: Sequence[str]) -> None:
    """Label positions 1, 2, ... on the horizontal axis by name if there is room, else by number."""
    axes.set_xlim(0.4, len(names) + 0.6)
    if len(names) > LABELLED:
        whole_numbers(axes)
        return
    turned = 90 if sum(map(len, names)) > CHARACTERS else 0
    axes.set_xticks(range(1, len(names) + 1), [*map(literal, names)], rotation=turned, fontsize=7.5)
