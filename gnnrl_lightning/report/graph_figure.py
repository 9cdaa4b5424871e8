"""Figures of computational graphs: the network, the motifs of its operators, and the simplified graph."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.report.costs import unit_prefix
from gnnrl_lightning.report.flow import COLOURS, FONT, ROW, Flow, Node, draw, lay_out, mark_area, text_width

SUFFIXES = (".png", ".svg", ".pdf")
_STRONG = ("input", "conv", "linear", "attention", "add", "mul", "cat")  # kinds with dark labels
_TIMES = "\N{MULTIPLICATION SIGN}"
_MARGIN, _HEADER, _SECTION = 0.35, 0.95, 0.35  # inches
_MOTIF_WIDTH, _MOTIF_HEIGHT, _MOTIFS = 2.3, 1.65, 4


class NotebookFigure(Figure):
    """A figure that notebooks display without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def graph_figure(hierarchical: Any, simplified: Any, title: str = "") -> Figure:
    """Draw level 2 of a network, the motifs of its most frequent kinds of operators, and its simplified graph.

    Args:
        hierarchical: The graph of `gnnrl_lightning.rl.state.views.hierarchical_graph`.
        simplified: The graph of `gnnrl_lightning.rl.state.views.simplified_graph`.
        title: Name of the network; MACs, parameters and the number of channel groups are appended.
    """
    rows = _rows(len(hierarchical.network.name))
    flows = [_network_flow(hierarchical, rows), _simplified_flow(simplified, hierarchical.groups, rows)]
    motifs = _common(hierarchical.motifs)
    listing = [f"g{number}  {name}" for number, name in enumerate(hierarchical.groups)]
    listed = 0.45 + 0.13 * min(-(-len(listing) // 2), 20)
    height = max(*(flow.height for flow in flows), _MOTIF_HEIGHT * len(motifs) + listed)
    legend = _legend_entries(flows)
    width = max(sum(flow.width for flow in flows) + _MOTIF_WIDTH + 2 * 0.6, 7.0) + 2 * _MARGIN
    figure, axes = _canvas(width, height + _HEADER + _SECTION + 2 * _MARGIN)
    top = _header(axes, title, _costs(hierarchical), legend)
    left = _MARGIN
    sections = (("Level 2: the network", "network"), ("Simplified, one level", "simplified"))
    for flow, (heading, name) in zip(flows, sections, strict=True):
        axes.text(left, top, heading, size=9, weight="bold", va="top")
        draw(axes, flow, left, top - _SECTION, name)
        left += flow.width + 0.6
    axes.text(left, top, "Level 1: common motifs", size=9, weight="bold", va="top")
    y = top - _SECTION
    for motif in motifs:
        _draw_motif(axes, motif, left, y)
        y -= _MOTIF_HEIGHT
    _list_groups(axes, listing, left, y - 0.15)
    return figure


def network_figure(hierarchical: Any, title: str = "") -> Figure:
    """Draw level 2 of a network alone; arguments as in `graph_figure`."""
    flow = _network_flow(hierarchical, _rows(len(hierarchical.network.name)))
    return _single(flow, title, _costs(hierarchical), "network")


def simplified_figure(simplified: Any, groups: Sequence[str] = (), title: str = "") -> Figure:
    """Draw a simplified graph alone.

    Args:
        simplified: The graph of `gnnrl_lightning.rl.state.views.simplified_graph`.
        groups: Names of the channel groups, to mark them.
        title: Name of the network.
    """
    return _single(_simplified_flow(simplified, groups, _rows(len(simplified.name))), title, "", "simplified")


def motif_figure(motif: Any) -> Figure:
    """Draw a motif, one of `HierarchicalGraph.motifs`: its channels and filters, and the weights of the quotient."""
    figure, axes = _canvas(_MOTIF_WIDTH + 2 * _MARGIN, _MOTIF_HEIGHT + 2 * _MARGIN)
    _draw_motif(axes, motif, _MARGIN, _MOTIF_HEIGHT + _MARGIN)
    return figure


def checked_suffix(path: str) -> str:
    """Return the path of a figure if its suffix is supported.

    Raises:
        UserError: The suffix is not supported.
    """
    if not path.lower().endswith(SUFFIXES):
        raise UserError(f"--figure {path}: expected a name that ends in {', '.join(SUFFIXES)}")
    return path


def _single(flow: Flow, title: str, facts: str, name: str) -> Figure:
    width = max(flow.width, 5.0) + 2 * _MARGIN
    figure, axes = _canvas(width, flow.height + _HEADER + 2 * _MARGIN)
    draw(axes, flow, _MARGIN, _header(axes, title, facts, _legend_entries([flow])), name)
    return figure


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure and axes that cover it, with the inch as unit."""
    figure = NotebookFigure(figsize=(width, height), dpi=150)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    return figure, axes


def _network_flow(hierarchical: Any, rows: int) -> Flow:
    network, motifs = hierarchical.network, hierarchical.motifs
    geometry = {}
    for target, number in zip(network.edge_index[1].tolist(), network.edge_motif.tolist(), strict=True):
        geometry[target] = _geometry(motifs[number])
    tags = _tags(network, hierarchical.groups)
    blocks = [hierarchical.blocks.name[number] for number in network.block.tolist()]
    nodes = [_node(network, i, geometry.get(i, ""), tags[i], blocks[i]) for i in range(len(network.name))]
    return lay_out(nodes, network.edge_index.T.tolist(), rows)


def _simplified_flow(simplified: Any, groups: Sequence[str], rows: int) -> Flow:
    tags = _tags(simplified, groups)
    nodes = [_node(simplified, i, "", tags[i], "") for i in range(len(simplified.name))]
    return lay_out(nodes, simplified.edge_index.T.tolist(), rows)


def _rows(nodes: int) -> int:
    """Return the maximum number of rows in a column, for a figure that is wider than high."""
    return max(44, int(math.sqrt(8 * nodes)))


def _node(data: Any, i: int, geometry: str, tag: str, block: str) -> Node:
    kinds, channels = tuple(dict.fromkeys(data.kinds[i])), int(data.channels[i])
    kind = kinds[0]
    module, _, operator = data.name[i].rpartition(":")
    operator = re.sub(r"[_\d]+$", "", operator) or operator
    strong = kind in _STRONG
    frozen = float(data.prunable[i]) == 0
    words = [module if strong and module and kind in ("conv", "linear", "attention") else operator, geometry]
    if strong:
        shape = data.shape[i]
        area = f" @ {_TIMES.join(map(str, shape[1:]))}" if len(shape) == 3 else ""
        arrow = "" if kind == "input" else "→ "
        words += [f"{arrow}{channels}{area}", "frozen" if frozen else "", tag]
    return Node("  ".join(filter(None, words)), kinds, channels, frozen, strong, block)


def _geometry(motif: Any) -> str:
    if motif.kinds[0] != "conv":
        return ""
    stride = f" /{motif.stride:g}" if motif.stride > 1 else ""
    groups = f" in {motif.groups} groups" if motif.groups > 1 else ""
    return f"{motif.kernel:.3g}{_TIMES}{motif.kernel:.3g}{stride}{groups}"


def _tags(data: Any, groups: Sequence[str]) -> list[str]:
    """Return the channel groups of each node by number, at most three."""
    found: list[list[int]] = [[] for _ in data.name]
    if groups:
        for node, group in data.decision_index.T.tolist():
            found[node].append(group)
    return [", ".join(f"g{g}" for g in own[:3]) + (" …" if len(own) > 3 else "") for own in found]


def _costs(hierarchical: Any) -> str:
    costs, groups = hierarchical.costs, len(hierarchical.groups)
    words = [f"{_short(cost)} {name}" for name, cost in costs.items()]
    return ", ".join([*words, f"{groups} channel group{'s' * (groups != 1)}"])


def _short(count: float) -> str:
    unit, prefix = unit_prefix(count)
    return f"{count / unit:.3g} {prefix}" if prefix else str(count)


def _legend_entries(flows: Sequence[Flow]) -> list[tuple[str, str, bool, float]]:
    """Return the text, colour, hollowness and area of each mark of the legend."""
    nodes = [node for flow in flows for node in flow.nodes]
    kinds = {kind for node in nodes for kind in node.kinds}
    entries = [(kind, COLOURS[kind], False, 22.0) for kind in COLOURS if kind in kinds]
    entries.append(("frozen", "#222222", True, 22.0))
    most = max(node.channels for node in nodes)
    sizes = sorted({max(most // 16, 1), max(most // 4, 1), most})
    return entries + [(f"{size} channels", "#777777", False, mark_area(size)) for size in sizes]


def _header(axes: Axes, title: str, facts: str, legend: Sequence[tuple[str, str, bool, float]]) -> float:
    """Draw title, costs and legend; return the top of the remaining space."""
    width, height = axes.get_xlim()[1], axes.get_ylim()[1]
    y = height - _MARGIN
    heading = ": ".join(filter(None, (title, facts)))
    axes.text(_MARGIN, y, heading, size=11, weight="bold", va="center")
    y -= 0.24
    note = (
        "Marks: feature maps. Lines: operators, downwards. Dots: operators that belong to the one before. "
        "g: channel group."
    )
    axes.text(_MARGIN, y, note, size=FONT, color="#555555", va="center")
    y -= 0.22
    x = _MARGIN + 0.05
    for text, colour, hollow, area in legend:
        radius = math.sqrt(area / math.pi) / 72
        step = 0.2 + radius + text_width(text)
        if x + step > width - _MARGIN:
            x, y = _MARGIN + 0.05, y - ROW
        axes.scatter([x], [y], s=area, c="white" if hollow else colour, edgecolors=colour, linewidths=1.1)
        axes.text(x + radius + 0.04, y, text, size=FONT, va="center_baseline")
        x += step
    return y - 0.3


def _common(motifs: Sequence[Any]) -> list[Any]:
    """Return the most frequent motif of each of the most frequent kinds."""
    best: dict[str, Any] = {}
    total: dict[str, int] = {}
    for motif in motifs:
        kind = motif.kinds[0]
        total[kind] = total.get(kind, 0) + motif.uses
        if kind not in best or motif.uses > best[kind].uses:
            best[kind] = motif
    return [best[kind] for kind in sorted(best, key=lambda kind: -total[kind])[:_MOTIFS]]


def _draw_motif(axes: Axes, motif: Any, left: float, top: float) -> None:
    """Draw channels, filters and channels from left to right; if more than five, only the first four and the last."""
    sizes = [int(size) for size in motif.members.tolist()]
    read, written = motif.weight[0].item(), motif.weight[1].item()
    name = " ".join(filter(None, (motif.kinds[0], _geometry(motif), *(f"+ {kind}" for kind in motif.kinds[1:]))))
    uses = f"{motif.uses} use{'s' * (motif.uses != 1)}"
    axes.text(left, top, f"{name}\n{sizes[0]} → {sizes[2]} channels, {uses}", size=7, linespacing=1.3, va="top")
    xs = [left + 0.25, left + _MOTIF_WIDTH / 2 - 0.1, left + _MOTIF_WIDTH - 0.45]
    spots: list[dict[int, float]] = []
    for size in sizes:
        shown = list(range(size)) if size <= 5 else [0, 1, 2, 3, size - 1]
        middle = top - 0.78
        steps = [n + 1.0 * (n == 4 and size > 5) for n in range(len(shown))]
        spots.append({index: middle + 0.14 * (steps[-1] / 2 - step) for index, step in zip(shown, steps, strict=True)})
    lines = [
        [(xs[0], y), (xs[1], to)]
        for i, y in spots[0].items()
        for f, to in spots[1].items()
        if math.floor(i / read + 1e-6) == math.floor(f / written + 1e-6)
    ]
    lines += [[(xs[1], y), (xs[2], spots[2][f])] for f, y in spots[1].items()]
    axes.add_collection(LineCollection(lines, colors="#b5bcc6", linewidths=0.7, zorder=1))
    colours = [COLOURS["input"], COLOURS[motif.kinds[0]], COLOURS["input"]]
    middles = "filters" if motif.kinds[0] in ("conv", "linear") else "operations"
    for x, size, column, colour, role in zip(xs, sizes, spots, colours, ("in", middles, "out"), strict=True):
        axes.scatter([x] * len(column), list(column.values()), s=20, c=colour, zorder=2)
        if size > 5:
            ys = list(column.values())
            axes.text(x, (ys[-1] + ys[-2]) / 2, "⋮", size=8, ha="center", va="center", color="#555555")
        axes.text(x, top - 1.26, f"{size} {role}", size=FONT, ha="center", va="center")
    weights = ", ".join(f"{weight:.4g}" for weight in motif.weight.tolist())
    axes.text(
        left, top - 1.42, f"quotient: 3 nodes, edge weights {weights}", size=FONT - 0.5, color="#666666", va="center"
    )


def _list_groups(axes: Axes, listing: Sequence[str], left: float, top: float) -> None:
    """Draw the names of the groups, as many as fit."""
    axes.text(left, top, "Channel groups", size=9, weight="bold", va="top")
    top -= 0.28
    room = max(int((top - _MARGIN) / 0.13), 1)
    column = _MOTIF_WIDTH / 2
    columns = 2 if max(map(text_width, listing), default=0) < column - 0.1 and len(listing) > 5 else 1
    shown = list(listing) or ["none"]
    if len(shown) > room * columns:
        rest = len(shown) - room * columns + 1
        shown = [*shown[:-rest], f"and {rest} more"]
    high = -(-len(shown) // columns)
    for number, text in enumerate(shown):
        axes.text(left + column * (number // high), top - 0.13 * (number % high), text, size=FONT, va="top")
