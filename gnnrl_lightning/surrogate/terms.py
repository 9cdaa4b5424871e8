"""What candidates look like to the surrogate: terms in which the logarithm of the loss is nearly linear."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from gnnrl_lightning.cost.ranges import log_keep
from gnnrl_lightning.graph import ComputationGraph

SMALLEST = 1e-7
"""Lower bound of a summed loss, before its logarithm."""


class Terms:
    r"""Terms of candidates of one network.

    With the keep ratios :math:`k_g` of the groups and :math:`x_g = \log k_g`, a candidate has the terms

    | term | number |
    |---|---|
    | 1 | 1 |
    | :math:`t = \log \sum_g e_g`, the summed losses of the sensitivity | 1 |
    | :math:`x_g` | G |
    | :math:`x_g^2` | G |
    | :math:`\sqrt{e_g / \sum_h e_h}`, which group the losses come from | G |
    | :math:`x_g x_h` of groups of which a layer reads one and writes the other | P |

    Args:
        graph: The traced network.
        losses: Losses of each group `(n, G)` at widths `(n, G)`, see `Sensitivity.of_groups`.
    """

    def __init__(self, graph: ComputationGraph, losses: Callable[[Tensor], Tensor]) -> None:
        self.graph, self.losses = graph, losses
        self.dense = graph.widths.double()

    @cached_property
    def pairs(self) -> Tensor:
        """Neighbouring groups `(2, P)` int64."""
        return neighbours(self.graph)

    @property
    def count(self) -> int:
        """Number of terms, 2 + 3 G + P."""
        return 2 + 3 * len(self.dense) + self.pairs.shape[1]

    def logs(self, widths: Tensor) -> Tensor:
        """Logarithms of the keep ratios `(n, G)` float64."""
        return log_keep(widths, self.dense)

    def __call__(self, widths: Tensor) -> Tensor:
        """Terms `(n, count)` float64 of candidates `(n, G)`."""
        x = self.logs(widths)
        losses = self.losses(widths).double()
        total = losses.sum(1, keepdim=True).clamp(min=SMALLEST)
        first, second = self.pairs
        singles = [x, x.square(), (losses / total).sqrt()]
        return torch.cat([torch.ones_like(total), total.log(), *singles, x[:, first] * x[:, second]], 1)


def neighbours(graph: ComputationGraph) -> Tensor:
    """Pairs of different groups `(2, P)` int64, first < second, of which a layer reads one and writes the other."""
    read: dict[str, set[int]] = {}
    written: dict[str, set[int]] = {}
    for number, group in enumerate(graph.groups):
        for member in group.members:
            side = {"input": read, "output": written}.get(member.role)
            if side is not None:
                side.setdefault(member.parameter, set()).add(number)
    found = {
        (min(source, target), max(source, target))
        for parameter, sources in read.items()
        for source in sources
        for target in written.get(parameter, set())
        if source != target
    }
    return torch.tensor(sorted(found), dtype=torch.int64).reshape(-1, 2).T
