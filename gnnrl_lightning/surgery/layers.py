"""Contractions in matrix form, for least squares: stacks of matrices that multiply input vectors.

A layer's weight is one matrix per block of a grouped convolution; its columns correspond to the elements of the input
vector. A transposed convolution is treated as a convolution of the input with zeros between its pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gnnrl_lightning.surgery.surgery import Cut
from gnnrl_lightning.surgery.traced import TracedNetwork
from gnnrl_lightning.tracing.axes import Axis, Selection


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer whose weight is a parameter.

    Attributes:
        weight: Name of its weight.
        bias: Name of its bias, if that is a parameter.
        norm: Parameters of the batch norm that is the only reader of its outputs, by role; empty if there is none.
        blocks: Channel layout along the inputs of each block of filters; empty if it reads no prunable channels.
        outputs: Channel layout along the outputs, or None if they cannot be pruned.
        transposed: Whether it is a transposed convolution.
        repeats: Consecutive inputs that belong to one channel: more than 1 for a linear layer after a flattened map.
        shared: Whether several operators use the weight.
    """

    weight: str
    bias: str | None
    norm: Mapping[str, str]
    blocks: tuple[Axis, ...]
    outputs: Axis | None
    transposed: bool
    repeats: int
    shared: bool = False

    def standard(self, weight: Tensor) -> Tensor:
        """Convert the weight to or from standard form, `(C_out, C_in / groups, *kernel)`; it is its own inverse."""
        if not self.transposed:
            return weight
        return weight.transpose(0, 1).flip(tuple(range(2, weight.dim())))

    def rows(self, selection: Selection, length: int) -> Tensor:
        """Return the kept outputs of `length` dense ones."""
        return torch.arange(length) if self.outputs is None else self.outputs.positions(selection)


def find_layers(graph: TracedNetwork) -> dict[str, Layer]:
    """Return weight name -> layer, in the order of the network; operators whose weight is not a parameter are skipped.

    Args:
        graph: The traced network.
    """
    contractions, cuts, norms = graph.contractions, graph.cuts, graph.norms
    found: dict[str, Layer] = {}
    items = [item for item in contractions if item.weight is not None]
    biases = Counter(bias for _, bias in {(item.weight, item.bias) for item in items})
    statistics = Counter(norm.get("running_mean") for norm in norms.values())
    for item in items:
        assert item.weight is not None
        cut = cuts.get(item.weight, Cut({}))
        reads, writes = (0, 1) if item.transposed else (1, 0)
        blocks = cut.blocks or ((cut.axes[reads],) if reads in cut.axes else ())
        shared = item.weight in found
        norm = norms.get(item.node, {})
        norm = norm if not shared and statistics[norm.get("running_mean")] == 1 else {}
        bias = item.bias if biases[item.bias] == 1 else None
        repeats = _repeats(blocks[0].channels) if len(blocks) == 1 else 1
        outputs = cut.axes.get(writes)
        found[item.weight] = Layer(item.weight, bias, norm, blocks, outputs, item.transposed, repeats, shared)
    return found


def kept_inputs(graph: TracedNetwork, selection: Selection) -> dict[str, Tensor]:
    """Return weight name -> positions `(C,)` of the kept ones among the channels that the layer reads.

    Layers are left out that read channels of which none can be pruned, or different ones in each block of filters.

    Args:
        graph: The traced network.
        selection: The kept channels.
    """
    layers = find_layers(graph).items()
    return {name: layer.blocks[0].positions(selection) for name, layer in layers if len(layer.blocks) == 1}


def _repeats(numbers: Tensor) -> int:
    """Return the number of neighbours that belong to one channel if it is the same everywhere, else 1."""
    counts = numbers.unique_consecutive(return_counts=True)[1]
    return int(counts[0]) if bool((numbers >= 0).all()) and bool((counts == counts[0]).all()) else 1


def to_matrices(weight: Tensor, blocks: int, length: int) -> Tensor:
    """Reshape a weight `(C_out, C_in / blocks, *kernel)` to `(blocks, rows, length)`.

    Args:
        weight: The weight in standard form, see `Layer.standard`.
        blocks: Number of blocks of filters.
        length: Length of the input vectors. An output that reads several of them (one per kernel position or per
            position of a flattened map) has one row for each.
    """
    rows = weight.reshape(blocks, len(weight) // blocks, length, -1)
    return rows.transpose(2, 3).reshape(blocks, -1, length)


def to_weight(matrices: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Reshape matrices to a weight of the given shape, the inverse of `to_matrices`."""
    blocks, rows, length = matrices.shape
    return matrices.reshape(shape[0], blocks * rows // shape[0], length).transpose(1, 2).reshape(shape)


def columns(positions: Tensor, dense: int, length: int) -> Tensor:
    """Return the elements of the input vector for the kept positions of the weight's input dimension.

    Args:
        positions: Kept positions of the input dimension, ascending within a channel.
        dense: Dense length of that dimension.
        length: Length of the input vector: a multiple of `dense`, or a divisor of it (for a flattened map).
    """
    if length < dense:
        repeats = dense // length
        return positions[::repeats] // repeats
    inner = length // dense
    return (positions[:, None] * inner + torch.arange(inner)).flatten()
