"""What follows from a walk and its groups: how tensors shrink, what depends on it, and what candidates cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from gnnrl_lightning.cost.products import CostModel, Products, Size, axis_size
from gnnrl_lightning.surgery.surgery import Cut, Dependents
from gnnrl_lightning.tracing.axes import Axis
from gnnrl_lightning.tracing.groups import Channels
from gnnrl_lightning.tracing.labels import ZERO, Value, support
from gnnrl_lightning.tracing.reading import masked_labels
from gnnrl_lightning.tracing.sizes.followers import norms_by_path, readers_of_norms, written_modules
from gnnrl_lightning.tracing.walk import Walk


def cuts_of(walk: Walk, channels: Channels) -> dict[str, Cut]:
    """How each parameter and buffer that is pruned shrinks, by name."""
    consumed = masked_labels(walk)
    blocks = {
        contraction.weight: contraction.reads
        for contraction in (*walk.contractions, *walk.training)
        if contraction.weight and contraction.reads is not None and contraction.reads.dim() == 2
    }
    gathers = {gather.buffer: gather.reads for gather in walk.gathers}
    cuts = {}
    for name, value in walk.parameters.items():
        labels = {dim: along for dim in range(len(value.shape)) if (along := value.along(dim)) is not None}
        axes = {dim: axis for dim, along in labels.items() if (axis := channels.axis(along)) is not None}
        reads = tuple(dim for dim in axes if int(labels[dim].max()) in consumed)
        rows = [channels.axis(row) for row in blocks[name]] if name in blocks else []
        sources = gathers.get(name)
        gather = None if sources is None else channels.axis(sources)
        zero = -1 if sources is None else next(iter((sources == ZERO).nonzero().flatten().tolist()), -1)
        if axes or any(rows) or gather is not None:
            cuts[name] = Cut(axes, tuple(row for row in rows if row is not None), reads, gather, zero)
    return cuts


def dependents_of(walk: Walk, channels: Channels) -> Dependents:
    """What depends on the kept channels beside parameters and buffers."""
    axis = channels.axis
    sizes = [(item, found) for item in walk.sizes if (found := axis(item.labels)) is not None]
    summaries = [(item, found) for item in walk.statistics if (found := axis(item.labels)) is not None]
    around = norms_by_path(walk), readers_of_norms(walk), written_modules(walk.steps)
    return Dependents(tuple(sizes), tuple(summaries), *around)


def reads_of(walk: Walk, channels: Channels, index: dict[str, int]) -> dict[int, tuple[Axis, ...]]:
    """Operator with MACs -> layouts of the prunable channels that it contracts.

    Args:
        walk: The walk.
        channels: Its groups.
        index: Node -> index of its operator.
    """
    found: dict[int, tuple[Axis, ...]] = {}
    for item in walk.contractions:
        rows = () if item.reads is None else item.reads if item.reads.dim() == 2 else item.reads[None]
        axes = [axis for row in rows if (axis := channels.axis(row)) is not None]
        found[index[item.node]] = (*found.get(index[item.node], ()), *axes)
    return found


def count_costs(
    walk: Walk, channels: Channels, cuts: Mapping[str, Cut], index: Mapping[str, int], operators: int
) -> CostModel:
    """MACs and parameters.

    Args:
        walk: The walk.
        channels: Its groups.
        cuts: How parameters shrink.
        index: Node of an operator, or name of a parameter -> index of the operator.
        operators: Number of operators.
    """

    def size(labels: Tensor) -> Size:
        return axis_size(channels.axis(labels), len(labels))

    macs = [(index[item.node], (item.factor, [size(labels) for labels in item.sizes])) for item in walk.contractions]
    parameters = [
        (index.get(name, -1), (1, _parameter_sizes(cuts.get(name), walk.parameters[name]))) for name in walk.trainable
    ]
    masked = [
        (number, (1, _parameter_sizes(cuts.get(group.name), walk.parameters[group.name])))
        for number, group in enumerate(channels.groups)
        if not group.sets
    ]
    return CostModel(macs, parameters, operators, len(channels.groups), masked)


def _parameter_sizes(cut: Cut | None, value: Value) -> list[Size]:
    sizes = [axis_size(cut.axes.get(dim) if cut else None, length) for dim, length in enumerate(value.shape)]
    if cut and cut.blocks:
        sizes[1] = axis_size(cut.blocks[0], value.shape[1])
    fixed = math.prod(constant for constant, counts in sizes if not counts)
    return [(fixed, {}), *(size for size in sizes if size[1])]


def count_elements(values: Sequence[Value], channels: Channels) -> Products:
    """Number of elements of each feature map, for one example."""
    return Products.build([_elements(value, channels) for value in values], len(channels.groups))


def _elements(value: Value, channels: Channels) -> tuple[int, list[Size]]:
    elements, sizes, taken = math.prod(value.shape), [], set()
    for labels in value.labels:
        axis, along = channels.axis(labels.flatten()), {*support(labels)}
        if axis is not None and not taken & along:
            taken |= along
            elements //= labels.numel()
            sizes.append(axis_size(axis, labels.numel()))
    return elements, sizes
