"""What candidates look like to the surrogate: terms in which the logarithm of the loss is nearly linear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gnnrl_lightning.cost.ranges import log_keep

SMALLEST = 1e-7
"""Lower bound of a summed loss, before its logarithm."""

KINDS = 3
"""Kinds of terms of a group."""


class Terms:
    r"""Terms of candidates of one network.

    With the keep ratios :math:`k_g` of the groups and :math:`x_g = \log k_g`, a candidate has the terms

    | term | number |
    |---|---|
    | 1 | 1 |
    | :math:`t = \log \sum_g e_g`, the summed losses of the sensitivity | 1 |
    | :math:`x_g` | G |
    | :math:`k_g` | G |
    | :math:`\sqrt{e_g / \sum_h e_h}`, which group the losses come from | G |

    Args:
        widths: Widths of the dense network's groups `(G,)`.
        losses: Losses of each group `(n, G)` at widths `(n, G)`, see `Sensitivity.of_groups`.
        likeness: How alike the groups are `(G, G)`, see `gnnrl_lightning.surrogate.likeness`; None: not known.

    Attributes:
        root: A square root of the likeness `(G, G)` float64, or None.
    """

    def __init__(self, widths: Tensor, losses: Callable[[Tensor], Tensor], likeness: Tensor | None = None) -> None:
        self.dense, self.losses = widths.double(), losses
        self.root = None if likeness is None else _root(likeness.double())

    @property
    def count(self) -> int:
        """Number of terms, 2 + 3 G."""
        return 2 + 3 * len(self.dense)

    def logs(self, widths: Tensor) -> Tensor:
        """Logarithms of the keep ratios `(n, G)` float64."""
        return log_keep(widths, self.dense)

    def __call__(self, widths: Tensor) -> Tensor:
        """Terms `(n, count)` float64 of candidates `(n, G)`."""
        losses = self.losses(widths).double()
        total = losses.sum(1, keepdim=True).clamp(min=SMALLEST)
        singles = [self.logs(widths), widths / self.dense, (losses / total).sqrt()]
        return torch.cat([torch.ones_like(total), total.log(), *singles], 1)


def _root(matrix: Tensor) -> Tensor:
    """A square root `R`, with `R R^T = matrix`, of a positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt()


USUAL = 0.5, 0.5, 0.25, 0.1
"""Usual standard deviations, over candidates, of the log loss and of the three terms of a group."""

USUAL_COUNT = 4
"""Candidates that the usual standard deviations count as."""


@dataclass(frozen=True)
class Standard:
    """Terms in units of their standard deviations over the candidates that are known.

    What a search varies much and what it varies little then are of the same size: a group that comes and goes has log
    keep ratios of a range of five, one that is nearly kept of a tenth.

    Attributes:
        centre: Means of the terms `(F - 1,)`, without the first one.
        size: Their standard deviations `(F - 1,)`, between the usual ones and those of the candidates.
    """

    centre: Tensor
    size: Tensor

    @classmethod
    def of(cls, terms: Tensor, groups: int) -> Standard:
        """The standard of terms `(n, F)` of known candidates of a network of so many groups; n may be 0."""
        usual = torch.tensor(USUAL, dtype=torch.float64).repeat_interleave(torch.tensor([1, *[groups] * 3]))
        known = terms[:, 1:]
        centre = known.mean(0) if len(known) else torch.zeros_like(usual)
        squares = (known - centre).square().sum(0) + USUAL_COUNT * usual.square()
        return cls(centre, (squares / (USUAL_COUNT + len(known))).sqrt())

    def __call__(self, terms: Tensor) -> tuple[Tensor, Tensor]:
        """Terms `(n, F)` of which those of groups are standardised, and all but the first one, standardised."""
        shifted = terms[:, 1:] - self.centre
        x = shifted / self.size
        return torch.cat([terms[:, :1], shifted[:, :1], x[:, 1:]], 1), x
