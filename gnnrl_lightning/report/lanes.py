"""Layout of a graph from top to bottom, one node per row: assigns the columns (lanes) of nodes and edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Lanes:
    """A layout in rows and lanes; node i is in row i.

    Attributes:
        lane: Lane of each node; 0 is the main lane.
        edges: A lane and a row for each edge: it moves from its source's lane to that lane at that row, and to its
            target's lane at the target's row.
    """

    lane: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]


def assign_lanes(nodes: int, edges: Sequence[tuple[int, int]]) -> Lanes:
    """Lay out a graph whose nodes are in order of computation.

    A node continues the lane of one of the nodes that it reads, preferably the lowest lane. Outputs that are read
    further down move to a free lane, so that no line crosses a node.

    Args:
        nodes: Number of nodes.
        edges: Pairs (source, target) with source < target.

    Returns:
        The layout.

    Raises:
        ValueError: An edge points upwards.
    """
    if any(source >= target for source, target in edges):
        raise ValueError("edges must run from a node to a later one")
    reads: list[list[int]] = [[] for _ in range(nodes)]
    last = list(range(nodes))
    for source, target in edges:
        reads[target].append(source)
        last[source] = max(last[source], target)
    lane = [0] * nodes
    busy: dict[int, int] = {}  # lane -> the node whose output it carries
    waiting: dict[int, int] = {}  # node -> the lane that carries its output
    moved: dict[int, int] = {}  # node -> the row at which its output leaves the node's lane
    runs: dict[tuple[int, int], tuple[int, int]] = {}
    for node in range(nodes):
        sources = sorted(set(reads[node]), key=lambda source: waiting[source])
        for source in sources:
            runs[source, node] = (waiting[source], moved.get(source, source))
        done = [waiting[source] for source in sources if last[source] == node]
        heads = [waiting[source] for source in sources if waiting[source] == lane[source]]
        lane[node] = min([*done, *heads], default=_free(busy))
        for freed in done:
            del busy[freed]
        pushed = busy.pop(lane[node], None)
        if last[node] > node:
            busy[lane[node]], waiting[node] = node, lane[node]
        if pushed is not None:
            # The others move to other lanes; no line crosses the node's mark, even if the node's own lane ends here.
            blocked = {**busy, lane[node]: node}
            waiting[pushed], moved[pushed] = _free(blocked), node
            busy[waiting[pushed]] = pushed
    return Lanes(tuple(lane), tuple(runs[edge] for edge in edges))


def _free(busy: dict[int, int]) -> int:
    return next(lane for lane in range(len(busy) + 1) if lane not in busy)


def split_rows(nodes: int, edges: Sequence[tuple[int, int]], most: int) -> list[range]:
    """Split rows into columns of at most `most` rows, of similar length, where few edges are cut.

    Args:
        nodes: Number of rows.
        edges: Pairs (source, target) with source < target.
        most: Maximum number of rows in a column.

    Returns:
        The rows of each column, in order.
    """
    crossing = [0] * (nodes + 1)  # number of edges from above a row to the row or below
    for source, target in edges:
        for row in range(source + 1, target + 1):
            crossing[row] += 1
    columns, start = [], 0
    while nodes - start > most:
        left = math.ceil((nodes - start) / (0.9 * most))  # leaves some freedom in where to split
        even = start + -(-(nodes - start) // left)
        first = max(even - most // 6, nodes - most * (left - 1))  # otherwise one more column would be needed
        choices = range(first, min(start + most, even + most // 6) + 1)
        stop = min(choices, key=lambda row: (crossing[row], abs(row - even)))
        columns.append(range(start, stop))
        start = stop
    return [*columns, range(start, nodes)]
