"""Figures of the reports: one palette with light and dark values, SVG that follow the reader's mode, and PNG files.

Figures are drawn in the light colours. In an SVG, each of them becomes the CSS variable of its role, so that a page
shows the same figure in light and dark. Blue and orange, which all readers tell apart, stand for ours and uniform
pruning; other series also differ in their marks or lines.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from io import StringIO
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

PALETTE: Mapping[str, tuple[str, str]] = {
    "paper": ("#fefefe", "#15181d"),
    "ink": ("#1c1f24", "#e6e8eb"),
    "muted": ("#5a616b", "#a3abb6"),
    "line": ("#dcdfe4", "#363c45"),
    "shade": ("#e6e9ed", "#2e343d"),
    "dense": ("#8a9099", "#8d949f"),
    "ours": ("#0b66b5", "#5fb2ff"),
    "uniform": ("#c85a00", "#ff9c47"),
    "start": ("#0a7d62", "#45cfa8"),
    "other": ("#8d4b9e", "#d197e3"),
    "scale1": ("#86b6e0", "#3c6c99"),
    "scale2": ("#4d92cb", "#4a8ac2"),
    "scale3": ("#2673b3", "#67addf"),
    "scale4": ("#175993", "#90c6f2"),
    "scale5": ("#0a325a", "#cfe6fa"),
}
"""Role -> its colour in light and in dark mode. The light colours are distinct."""

INK, MUTED, LINE, SHADE, PAPER = (PALETTE[role][0] for role in ("ink", "muted", "line", "shade", "paper"))
DENSE, OURS, UNIFORM, START, OTHER = (PALETTE[role][0] for role in ("dense", "ours", "uniform", "start", "other"))
SCALE = tuple(PALETTE[f"scale{number}"][0] for number in range(1, 6))
"""Five colours in order, from faint to strong."""

WIDTH, HEIGHT = 5.0, 3.1
"""Size of a figure, inches. A page shows it 360 to 620 pixels wide, and its text stays between 9 and 15 pixels."""

STEPS = {2.0: (1.0,), 0.9: (1.0, 2.0, 5.0), 0.4: (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)}
"""Least number of decades of a logarithmic axis -> labelled numbers of a decade; at least two are within the axis."""

STYLE: Any = {
    "font.size": 9,
    "font.family": ["DejaVu Sans"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "axes.formatter.useoffset": False,
    "figure.facecolor": PAPER,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "svg.fonttype": "none",  # text, which is searched and read aloud
}


def styled() -> AbstractContextManager[None]:
    """Return a context in which figures are drawn and saved in the style of the reports."""
    return mpl.rc_context(STYLE)


def canvas(rows: int = 1, height: float = HEIGHT, **options: Any) -> tuple[Figure, list[Axes]]:
    """Return a new figure and its axes, one above the other; draw within `styled`.

    Args:
        rows: Number of axes.
        height: Height of the figure, inches.
        **options: Options of `Figure.subplots`.
    """
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(rows, 1, squeeze=False, **options)[:, 0])


def legend(figure: Figure, axes: Axes, columns: int = 3, order: Sequence[str] = ()) -> None:
    """Put a legend of one of the axes above the figure, where it covers nothing.

    Args:
        figure: The figure.
        axes: The axes whose labels it explains.
        columns: Number of columns.
        order: All labels in their order; none: matplotlib's order.
    """
    handles, labels = axes.get_legend_handles_labels()
    pairs = sorted(zip(handles, labels, strict=True), key=lambda pair: order.index(pair[1]) if order else 0)
    figure.legend(*zip(*pairs, strict=True), loc="outside upper left", ncols=columns)


def literal(name: str) -> str:
    """Return a name as a label: what is between its dollar signs is no formula."""
    return name.replace("$", r"\$")


def whole_numbers(axes: Axes) -> None:
    """Label only whole numbers on the horizontal axis."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def logarithmic(axes: Axes) -> None:
    """Make the vertical axis logarithmic, with few and plain numbers, however many decades are drawn."""
    axes.set_yscale("log")
    low, high = sorted(axes.get_ylim())
    decades = math.log10(high / low)
    steps = next((steps for least, steps in STEPS.items() if decades > least), None)
    axes.yaxis.set_major_locator(MaxNLocator(4) if steps is None else LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def svg(figure: Figure, name: str, title: str) -> str:
    """Return a figure as an SVG element whose colours are CSS variables.

    Args:
        figure: The figure.
        name: Prefix of the element's ids, unique in the page.
        title: What it shows, for readers that do not see it.
    """
    text = StringIO()
    with mpl.rc_context(STYLE | {"svg.hashsalt": name}):  # the same ids every time
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
    element = text.getvalue()
    element = element[element.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", element)
    for role, (light, _) in PALETTE.items():
        element = element.replace(light, f"var(--{role})")
    opening = f'<svg role="img" aria-label="{title}"'
    return re.sub(r'<svg(.*?) width="[^"]*"(.*?) height="[^"]*"', rf"{opening}\1\2", element, count=1, flags=re.DOTALL)


def variables(mode: int) -> str:
    """Return the CSS variables of the palette.

    Args:
        mode: 0 for light, 1 for dark.
    """
    return " ".join(f"--{role}: {colours[mode]};" for role, colours in PALETTE.items())
