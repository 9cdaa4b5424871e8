"""Level 1 of the state graph: the motif of one operator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gnnrl_lightning.tracing.topology import KINDS, Operator, Stage

ROLES = ("input", "operation", "output")
MOTIF_DIM = len(ROLES) + len(KINDS) + 3

# Kinds whose operation reads every input channel; all others work channel by channel.
_MIXING = ("conv", "linear")


def motif(
    kinds: str | Sequence[str], inputs: int, outputs: int, kernel: float = 1, stride: float = 1, groups: int = 1
) -> dict[str, Tensor]:
    """Level-1 graph of one operator or chain of operators, stored as the quotient by its automorphisms.

    Written out, a convolution has one node for each input channel, each filter and each output channel;
    filter and input channel are joined when the filter reads the channel, filter and output channel when it
    writes it. The parallel filters (and the channels of one kind) are automorphic: any permutation of them is
    a symmetry of the graph, so message passing gives them equal embeddings. Three nodes are left, and the
    edge from class s to class t weighs as many s-nodes as one t-node has for neighbours (the quotient of an
    equitable partition): a graph convolution with these weights computes for each class what it would compute
    for every member of it.

    What follows a convolution in its chain (batch norm, activation) works filter by filter and marks the filters.

    Args:
        kinds: One of `gnnrl_lightning.tracing.topology.KINDS`, or those of a chain; the first decides who reads whom.
        inputs: Input channels.
        outputs: Output channels.
        kernel: Kernel size (the root of its area where it is not square).
        stride: Stride (likewise).
        groups: Blocks of a grouped convolution.

    Returns:
        `x` (3, MOTIF_DIM) features of the classes, `edge_index` (2, 4), `weight` (4,) of the edges, and
        `members` (3,): how many nodes each class stands for.
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
    """The same level-1 graph written out: a node for each input channel, each filter and each output channel.

    `MotifEncoder` embeds it as it embeds the quotient; it is for looking at, since a convolution has
    inputs x outputs / groups edges each way.

    Args:
        kinds: As for `motif`, like the other arguments.
        inputs: Input channels, the first nodes.
        outputs: Output channels: as many filters, the next nodes, and as many outputs, the last nodes.
        kernel: Kernel size.
        stride: Stride.
        groups: Blocks of a grouped convolution.

    Returns:
        `x` (inputs + 2 outputs, MOTIF_DIM), `edge_index` (2, E), `weight` (E,) and `members` (nodes,), all ones.

    Raises:
        ValueError: The blocks are no whole number of channels, so that members of a class have different numbers
            of neighbours and no such graph exists.
    """
    first = kinds if isinstance(kinds, str) else kinds[0]
    blocks = groups if first in _MIXING else inputs
    if inputs % blocks or outputs % blocks:
        raise ValueError(f"{first} from {inputs} to {outputs} channels in {blocks} equal blocks cannot be written out")
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


def geometry(operator: Operator | Stage) -> tuple[float, float, float]:
    """Kernel size and stride of an operator, the roots of their areas, and its blocks."""

    def root(pair: Sequence[int]) -> float:
        return float(max(pair[0] * pair[1], 1)) ** 0.5

    return root(operator.kernel), root(operator.stride), float(max(operator.groups, 1))
