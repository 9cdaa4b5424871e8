"""Draw a graph in order of computation: one row per node, lanes for branches, several columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection, PathCollection
from matplotlib.patches import Rectangle
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from gnnrl_lightning.report.lanes import Lanes, assign_lanes, split_rows

COLOURS = {
    "input": "#222222",
    "conv": "#1f66b1",
    "linear": "#7b3fa0",
    "norm": "#5fb3b3",
    "activation": "#e8a33d",
    "pool": "#4c9a2a",
    "add": "#c8352f",
    "mul": "#e377a8",
    "cat": "#8c5a3c",
    "attention": "#4338ca",
    "shape": "#a3a3a3",
    "other": "#5c5c5c",
}
ROW, LANE, GAP, DOT = 0.19, 0.16, 0.3, 0.08  # inches
FONT = 6.5  # points


@dataclass(frozen=True)
class Node:
    """A node to draw.

    Attributes:
        label: Text beside the mark.
        kinds: Keys of `COLOURS`: the first gives the mark's colour, the others give dots beside it.
        channels: Number of channels, which determines the mark's size.
        frozen: Whether the mark is hollow.
        strong: Whether the label is dark.
        block: Block of the network; neighbours in the same block share a background.
    """

    label: str
    kinds: tuple[str, ...]
    channels: int
    frozen: bool
    strong: bool
    block: str = ""


@dataclass(frozen=True)
class Flow:
    """A graph laid out in columns; sizes in inches."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[int, int], ...]
    lanes: Lanes
    columns: tuple[range, ...]
    widths: tuple[float, ...]
    indent: float

    @property
    def width(self) -> float:
        """Width of all columns with the gaps between them, inches."""
        return sum(self.widths) + GAP * (len(self.widths) - 1)

    @property
    def height(self) -> float:
        """Height of the longest column, inches."""
        return ROW * (max(map(len, self.columns)) + 1)


def mark_area(channels: int) -> float:
    """Return the area of a node's mark in square points; its side grows with the logarithm of the channels."""
    return 7 + 0.35 * math.log2(max(channels, 1)) ** 2


def lay_out(nodes: Sequence[Node], edges: Sequence[tuple[int, int]], rows: int) -> Flow:
    """Lay out a graph.

    Args:
        nodes: The nodes, in order of computation.
        edges: Pairs (source, target); edges that point upwards are omitted.
        rows: Maximum number of rows in a column.
    """
    down = tuple((source, target) for source, target in edges if source < target)
    lanes = assign_lanes(len(nodes), down)
    columns = split_rows(len(nodes), down, rows)
    indent = 0.6 * LANE + DOT * max(len(node.kinds) - 1 for node in nodes)
    widths = []
    for column in columns:
        texts = sorted({nodes[row].label for row in column}, key=lambda text: (len(text), text))[-3:]
        widths.append((_lanes_in(column, lanes, down) + 0.6) * LANE + indent + max(map(text_width, texts)))
    return Flow(tuple(nodes), down, lanes, tuple(columns), tuple(widths), indent)


def text_width(text: str) -> float:
    """Return the width of a text in inches."""
    return TextPath((0, 0), text, size=FONT).get_extents().width / 72 if text.strip() else 0.0


def _lanes_in(column: range, lanes: Lanes, edges: Sequence[tuple[int, int]]) -> int:
    """Return the number of lanes that a column needs besides the main one."""
    runs = [
        run
        for (source, target), (run, _) in zip(edges, lanes.edges, strict=True)
        if source < column.stop and target >= column.start
    ]
    return max([lanes.lane[row] for row in column] + runs)


def draw(axes: Axes, flow: Flow, left: float, top: float, name: str) -> None:
    """Draw a graph into axes whose unit is the inch.

    Args:
        axes: The axes.
        flow: The layout.
        left: Left edge of its first column.
        top: Top of its first row.
        name: Prefix of the gids of the node and edge collections: "<name> nodes" and "<name> edges".
    """
    place = _Place(flow, left, top)
    bands = []
    for number, (column, width) in enumerate(zip(flow.columns, flow.widths, strict=True)):
        start = place.starts[number] - 0.08
        for shaded, rows in _bands(flow.nodes, column):
            if shaded:
                y = place.y(rows[-1], number) - ROW / 2
                bands.append(Rectangle((start, y), width + 0.2, ROW * len(rows)))
    axes.add_collection(PatchCollection(bands, facecolor="#f1f3f6", edgecolor="none", zorder=0))
    paths = [place.path(*edge, *run) for edge, run in zip(flow.edges, flow.lanes.edges, strict=True)]
    axes.add_collection(
        PathCollection(
            paths,
            facecolors="none",
            edgecolors=[COLOURS[flow.nodes[target].kinds[0]] for _, target in flow.edges],
            linewidths=1.1,
            zorder=1,
            gid=f"{name} edges",
        )
    )
    spots = [place.node(row) for row in range(len(flow.nodes))]
    colours = [COLOURS[node.kinds[0]] for node in flow.nodes]
    axes.scatter(
        [x for x, _ in spots],
        [y for _, y in spots],
        s=[mark_area(node.channels) for node in flow.nodes],
        c=["white" if node.frozen else colour for node, colour in zip(flow.nodes, colours, strict=True)],
        edgecolors=colours,
        linewidths=1.1,
        zorder=2,
        gid=f"{name} nodes",
    )
    dots = [
        (place.x(0, number) + 0.6 * LANE + DOT * n, place.y(row, number), COLOURS[kind])
        for number, column in enumerate(flow.columns)
        for row in column
        for n, kind in enumerate(flow.nodes[row].kinds[1:])
    ]
    axes.scatter([x for x, _, _ in dots], [y for _, y, _ in dots], s=5, c=[colour for _, _, colour in dots], zorder=2)
    for number, column in enumerate(flow.columns):
        x = place.x(0, number) + flow.indent
        for row in column:
            node = flow.nodes[row]
            colour = "#111111" if node.strong else "#8a8a8a"
            axes.text(x, place.y(row, number), node.label, size=FONT, color=colour, va="center_baseline")


def _bands(nodes: Sequence[Node], column: range) -> list[tuple[bool, list[int]]]:
    """Return the rows of each block, and whether it is shaded: every second block of the graph is."""
    order = {block: number for number, block in enumerate(dict.fromkeys(node.block for node in nodes))}
    runs = groupby(column, key=lambda row: nodes[row].block)
    return [(bool(block) and order[block] % 2 == 1, list(rows)) for block, rows in runs]


class _Place:
    """Conversion of rows and lanes to inches."""

    def __init__(self, flow: Flow, left: float, top: float) -> None:
        self.flow, self.top = flow, top
        self.starts = [left + sum(flow.widths[:n]) + GAP * n for n in range(len(flow.widths))]
        self._main = [
            start + LANE * (_lanes_in(column, flow.lanes, flow.edges) + 0.3)
            for start, column in zip(self.starts, flow.columns, strict=True)
        ]

    def x(self, lane: int, column: int) -> float:
        """Return the x position of a lane; the main lane is the rightmost one, next to the labels."""
        return self._main[column] - LANE * lane

    def y(self, row: float, column: int) -> float:
        return self.top - ROW * (row - self.flow.columns[column].start + 0.5)

    def node(self, row: int) -> tuple[float, float]:
        column = self._column(row)
        return self.x(self.flow.lanes.lane[row], column), self.y(row, column)

    def _column(self, row: int) -> int:
        return next(number for number, column in enumerate(self.flow.columns) if row in column)

    def path(self, source: int, target: int, run: int, turn: int) -> Path:
        """Return the path of an edge: down the source's lane, to the edge's lane, down, to the target; per column."""
        lane = self.flow.lanes.lane
        ends = {source: lane[source], target: lane[target]}
        points = [(row, ends.get(row, lane[source] if row < turn else run)) for row in range(source, target + 1)]
        vertices: list[tuple[float, float]] = []
        codes: list[Any] = []
        for number, rows in groupby(points, key=lambda point: self._column(point[0])):
            stops = [(float(row), where) for row, where in rows]
            if stops[0][0] > source:
                stops.insert(0, (stops[0][0] - 0.7, run if stops[0][0] > turn else lane[source]))
            if stops[-1][0] < target:
                stops.append((stops[-1][0] + 0.7, stops[-1][1]))
            here = [(self.x(where, number), self.y(row, number)) for row, where in stops]
            vertices.append(here[0])
            codes.append(Path.MOVETO)
            for (x0, y0), (x1, y1) in pairwise(here):
                if x0 == x1:
                    vertices.append((x1, y1))
                    codes.append(Path.LINETO)
                else:
                    middle = (y0 + y1) / 2
                    vertices += [(x0, middle), (x1, middle), (x1, y1)]
                    codes += [Path.CURVE4] * 3
        return Path(vertices, codes)
