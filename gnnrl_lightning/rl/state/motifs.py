"""Level 1 of the state graph: the motif of one operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.tracing.topology import KINDS, Operator, Stage

ROLES = ("input", "operation", "output")
MOTIF_DIM = len(ROLES) + len(KINDS) + 3

# Kinds that mix channels; all others operate on each channel separately.
_MIXING = ("conv", "linear")


def motif(
    kinds: str | Sequence[str], inputs: int, outputs: int, kernel: float = 1, stride: float = 1, groups: int = 1
) -> dict[str, Tensor]:
    """Level-1 graph of an operator or a chain of operators, stored as the quotient by its automorphisms.

    The expanded graph of a convolution has a node for each input channel, each filter and each output channel. A
    filter is connected to the input channels that it reads and to the output channel that it writes. The parallel
    filters, and the channels of the same kind, are automorphic: any permutation of them is a symmetry of the graph, so
    message passing gives them equal embeddings. The quotient therefore has three nodes, one per class. The weight of
    the edge from class s to class t is the number of s-nodes that are neighbours of one t-node (the quotient of an
    equitable partition). A graph convolution with these weights computes for each class the same values as for every
    member of it in the expanded graph.

    Operators that follow a convolution in a chain (batch norm, activation) act on each filter separately; their kinds
    are features of the filters.

    Args:
        kinds: One of `gnnrl_lightning.tracing.topology.KINDS`, or the kinds of a chain; the first determines the edges.
        inputs: Number of input channels.
        outputs: Number of output channels.
        kernel: Kernel size (the square root of its area if it is not square).
        stride: Stride (likewise).
        groups: Blocks of a grouped convolution.

    Returns:
        `x` (3, MOTIF_DIM) features of the classes, `edge_index` (2, 4), `weight` (4,) of the edges, and `members` (3,):
        number of nodes in each class.
    """
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if kinds[0] in _MIXING:
        filters, read, written = outputs, inputs / groups, outputs / groups
    else:
        filters, read, written = outputs, 1.0, outputs / inputs
    size = torch.tensor([inputs, filters, outputs], dtype=torch.float32)
    x = torch.zeros(3, MOTIF_DIM)
    x[:, : len(ROLES)] = torch.eye(3)
    for kind in kinds:
        x[1, len(ROLES) + KINDS.index(kind)] = 1.0
    x[1, -3] = torch.tensor(float(kernel)).log2() / 3
    x[1, -2] = torch.tensor(float(stride)).log2() / 3
    x[:, -1] = size.log2() / 12
    return {
        "x": x,
        "edge_index": torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]),
        "weight": torch.tensor([read, written, 1.0, 1.0]),
        "members": size,
    }


def expanded_motif(
    kinds: str | Sequence[str], inputs: int, outputs: int, kernel: float = 1, stride: float = 1, groups: int = 1
) -> dict[str, Tensor]:
    """The expanded level-1 graph, with a node for each input channel, each filter and each output channel.

    `MotifEncoder` gives the same embedding for it as for the quotient. It is meant for inspection only, since a
    convolution has inputs x outputs / groups edges in each direction.

    Args:
        kinds: As for `motif`.
        inputs: Number of input channels; their nodes come first.
        outputs: Number of output channels and of filters; the nodes of the filters come next, then the outputs.
        kernel: Kernel size.
        stride: Stride.
        groups: Blocks of a grouped convolution.

    Returns:
        `x` (inputs + 2 outputs, MOTIF_DIM), `edge_index` (2, E), `weight` (E,) and `members` (nodes,), all ones.

    Raises:
        ValueError: The channels cannot be divided into equal blocks, so that no such graph exists.
    """
    first = kinds if isinstance(kinds, str) else kinds[0]
    blocks = groups if first in _MIXING else inputs
    if inputs % blocks or outputs % blocks:
        raise ValueError(f"{first} from {inputs} to {outputs} channels cannot be divided into {blocks} equal blocks")
    quotient = motif(kinds, inputs, outputs, kernel, stride, groups)
    filters = torch.arange(outputs)
    reads = (torch.arange(inputs) // (inputs // blocks))[:, None] == filters // (outputs // blocks)
    source, target = reads.nonzero().T
    one_way = torch.stack(
        [torch.cat([source, inputs + filters]), torch.cat([inputs + target, inputs + outputs + filters])]
    )
    edge_index = torch.cat([one_way, one_way.flip(0)], dim=1)
    x = quotient["x"].repeat_interleave(torch.tensor([inputs, outputs, outputs]), dim=0)
    return {
        "x": x,
        "edge_index": edge_index,
        "weight": torch.ones(edge_index.shape[1]),
        "members": torch.ones(len(x)),
    }


def packed(motifs: Sequence[Any]) -> dict[str, Tensor]:
    """Level-1 graphs, one after the other, as the fields of a state that begin with `motif_`.

    Args:
        motifs: Graphs with `x` and `edge_index`, by key; quotient graphs also have `weight` and `members`, else ones.
    """
    sizes = torch.tensor([len(item["x"]) for item in motifs])
    starts = (sizes.cumsum(0) - sizes).tolist()

    def or_ones(item: Any, name: str, count: int) -> Tensor:
        return item[name] if name in item else item["x"].new_ones(count)

    return {
        "motif_x": torch.cat([item["x"] for item in motifs]),
        "motif_edge_index": torch.cat([item["edge_index"] + n for item, n in zip(motifs, starts, strict=True)], dim=1),
        "motif_weight": torch.cat([or_ones(item, "weight", item["edge_index"].shape[1]) for item in motifs]),
        "motif_size": torch.cat([or_ones(item, "members", len(item["x"])) for item in motifs]),
        "motif_batch": torch.arange(len(motifs)).repeat_interleave(sizes),
    }


def geometry(operator: Operator | Stage) -> tuple[float, float, float]:
    """Kernel size and stride of an operator (square roots of their areas), and its number of blocks."""

    def root(pair: Sequence[int]) -> float:
        return float(max(pair[0] * pair[1], 1)) ** 0.5

    return root(operator.kernel), root(operator.stride), float(max(operator.groups, 1))
