"""Proposals: the widths of an allocation at any MACs limit, from which a policy starts."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.search.baselines import Allocation
from gnnrl_lightning.surrogate.sensitivity import Sensitivity

POINTS = 9
"""Number of limits in a range at which the allocation is computed."""


class Proposals:
    """Widths of an allocation as a function of the MACs limit.

    For a range of limits, the allocation is computed at evenly spaced limits and interpolated linearly between them;
    without a range, it is computed once, for the budget.

    Args:
        graph: The traced network.
        limits: The budget bound to the graph.
        sensitivity: Losses per group.
        propose: Allocation, a value of `gnnrl_lightning.search.baselines.FROM_SENSITIVITY`.
        macs_range: Smallest and largest limit as shares of the dense MACs, instead of the budget's; None: no range.
    """

    def __init__(
        self,
        graph: ComputationGraph,
        limits: BoundBudget,
        sensitivity: Sensitivity,
        propose: Allocation,
        macs_range: tuple[float, float] | None = None,
    ) -> None:
        if macs_range is None:
            self._shares, found = torch.zeros(1), [propose(graph, limits, sensitivity)]
        else:
            self._shares = torch.linspace(*macs_range, POINTS)
            bound = [limits.with_limits(macs=share) for share in self._shares.double().tolist()]
            found = [propose(graph, limited, sensitivity) for limited in bound]
        self._widths = torch.stack(found).float()

    def __call__(self, limits: Tensor) -> Tensor:
        """Unrounded widths `(B, G)` at MACs limits `(B,)`, relative to the dense network."""
        if len(self._shares) == 1:
            return self._widths.expand(len(limits), -1)
        limits = limits.clamp(self._shares[0], self._shares[-1]).contiguous()
        right = torch.searchsorted(self._shares, limits).clamp(1, len(self._shares) - 1)
        left = right - 1
        between = (limits - self._shares[left]) / (self._shares[right] - self._shares[left])
        return torch.lerp(self._widths[left], self._widths[right], between[:, None])
