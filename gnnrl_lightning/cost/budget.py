"""Budgets, and the projection of widths onto them.

The projection first scales the proposed widths by the largest common factor that fits, then widens groups one aligned
step at a time, those furthest below their proposal first, until no group can be widened any more: what comes
back meets every limit, and no group could be one step wider.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from gnnrl_lightning.cost.products import CostModel
from gnnrl_lightning.cost.ranges import WidthRanges
from gnnrl_lightning.errors import UserError

BISECTIONS = 40
"""Halvings of the interval of the common factor: its error is far below one channel."""


class Prunable(Protocol):
    """What a budget needs to know of a traced network."""

    @property
    def cost(self) -> CostModel: ...  # noqa: D102
    @property
    def widths(self) -> Tensor: ...  # noqa: D102
    @property
    def sets(self) -> Tensor: ...  # noqa: D102
    @property
    def ranges(self) -> WidthRanges: ...  # noqa: D102


Limits = Mapping[str, float | Tensor]
"""Metric ("macs" or "params") -> absolute upper limit: one for all candidates, or one for each `(B,)`."""


@dataclass(frozen=True)
class Budget:
    """Upper limits on the pruned network; all that are given must hold.

    Args:
        macs: Multiply-accumulates for one image: at most 1 means relative to the dense network, above 1 absolute.
        params: Number of parameters, relative or absolute in the same way.
        latency: Not available yet; give macs or params.
        channel_multiple: Widths are multiples of this number of channels, or dense.
        min_width: Every group keeps at least this many channels (all of them, if it has fewer).
    """

    macs: float | None = None
    params: float | None = None
    latency: float | None = None
    channel_multiple: int = 1
    min_width: int = 1

    def __post_init__(self) -> None:
        if self.latency is not None:
            raise UserError("budget.latency is not available yet: give budget.macs or budget.params")
        if self.macs is None and self.params is None:
            raise UserError("the budget is empty: give budget.macs, budget.params or both, for example macs: 0.5")
        for name in ("macs", "params"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"budget.{name} is {value}: it must be positive, for example 0.5 (half of the network)")
        for name in ("channel_multiple", "min_width"):
            if getattr(self, name) < 1:
                raise UserError(f"budget.{name} is {getattr(self, name)}: it must be at least 1")

    def ladder(self, graph: Prunable) -> Ladder:
        """The widths that each group of `graph` may take."""
        return Ladder(graph.widths, graph.sets, self.channel_multiple, self.min_width, graph.ranges)

    def limits(self, graph: Prunable) -> dict[str, float]:
        """The budget in absolute numbers, see `absolute_limits`."""
        return absolute_limits(self, graph.cost, self.ladder(graph))

    def met(self, graph: Prunable, widths: Tensor) -> Tensor:
        """Which candidates `(..., G)` meet the budget and keep to the groups' ranges: bool `(...)`."""
        return fits(graph.cost, widths, self.limits(graph)) & graph.ranges.hold(widths)

    def project(self, graph: Prunable, widths: Tensor) -> Tensor:
        """The nearest widths below `widths`, `(G,)` or `(B, G)`, that meet the budget, see `project`."""
        batch = widths if widths.dim() > 1 else widths[None]
        return project(graph.cost, self.ladder(graph), batch, self.limits(graph)).reshape(widths.shape)


@dataclass(frozen=True)
class Ladder:
    """The widths that each group may take.

    Args:
        dense: Dense widths `(G,)`.
        sets: Index sets of each group `(G,)`: the tensors' dimensions have `sets * width` channels.
        channel_multiple: Alignment of the tensors' dimensions.
        min_width: Smallest number of channels.
        ranges: Lowest and highest width that the user allows each group; None: any.

    Attributes:
        step: Difference of neighbouring widths `(G,)`.
        lowest: Lowest allowed widths `(G,)`.
        highest: Highest allowed widths `(G,)`.

    Raises:
        UserError: A group has no allowed width.
    """

    dense: Tensor
    sets: Tensor
    channel_multiple: int = 1
    min_width: int = 1
    ranges: WidthRanges | None = None
    step: Tensor = field(init=False)
    lowest: Tensor = field(init=False)
    highest: Tensor = field(init=False)

    def __post_init__(self) -> None:
        multiple = torch.full_like(self.dense, self.channel_multiple)
        step = multiple // torch.gcd(multiple, self.sets)
        smallest, highest = torch.full_like(self.dense, self.min_width), self.dense
        if self.ranges is not None:
            smallest, top = torch.maximum(smallest, self.ranges.lowest), self.ranges.highest
            highest = torch.where(top >= self.dense, self.dense, top // step * step)
        lowest = self.up(smallest, step)
        for name, tensor in (("step", step), ("lowest", lowest), ("highest", highest)):
            object.__setattr__(self, name, tensor)
        if bool((lowest > highest).any()):
            group = int((lowest > highest).nonzero()[0])
            self._refuse(group, min(int(smallest[group]), int(self.dense[group])))

    def _refuse(self, group: int, smallest: int) -> None:
        assert self.ranges is not None, "only a user's limit makes a highest width below the lowest one"
        aligned = f" in steps of {int(self.step[group])}" if int(self.step[group]) > 1 else ""
        raise UserError(
            f"groups.limits and the budget leave {self.ranges.names[group]} no width{aligned}: at least {smallest} and "
            f"at most {int(self.ranges.highest[group])} of its {int(self.dense[group])} channels "
            f"(budget.min_width is {self.min_width}, budget.channel_multiple {self.channel_multiple})"
        )

    def up(self, widths: Tensor, step: Tensor) -> Tensor:
        """The next aligned widths not below `widths`, dense at most."""
        return torch.minimum(((widths + step - 1) // step) * step, self.dense)

    def down(self, widths: Tensor) -> Tensor:
        """The next allowed widths not above `widths`, at least the lowest."""
        aligned = torch.where(widths >= self.dense, self.dense, widths // self.step * self.step)
        return torch.maximum(torch.minimum(aligned, self.highest), self.lowest)

    def wider(self, widths: Tensor) -> Tensor:
        """One step wider (the highest widths stay)."""
        return torch.minimum((widths // self.step + 1) * self.step, self.highest)


def absolute_limits(budget: Budget, cost: CostModel, ladder: Ladder) -> dict[str, float]:
    """The budget in absolute numbers.

    Raises:
        UserError: The budget exceeds the dense cost, or even the smallest network does not fit.
    """
    limits = {}
    for name in ("macs", "params"):
        value = getattr(budget, name)
        if value is None:
            continue
        dense, smallest = (int(getattr(cost, name)(widths)) for widths in (ladder.dense, ladder.lowest))
        if value > 1 and value > dense:
            raise UserError(
                f"budget.{name} is {value:g}, more than the dense network has ({dense:,}): nothing to prune"
            )
        limit = value * dense if value <= 1 else float(value)
        if smallest > limit:
            raise UserError(
                f"budget.{name} is {value:g} ({limit:,.0f}), which cannot be reached: the smallest network has "
                f"{smallest:,} {name} ({smallest / dense:.4f} of the dense one)"
            )
        limits[name] = limit
    return limits


def fits(cost: CostModel, widths: Tensor, limits: Limits) -> Tensor:
    """Which candidates `(..., G)` meet every limit: bool `(...)`."""
    met = torch.ones(widths.shape[:-1], dtype=torch.bool)
    for name, limit in limits.items():
        met &= getattr(cost, name)(widths) <= limit
    return met


def project(cost: CostModel, ladder: Ladder, widths: Tensor, limits: Limits) -> Tensor:
    """The widths nearest to a proposal that meet every limit and cannot be widened.

    1. the largest s such that `down(s * proposal)`, the highest widths at most, fits, by bisection;
    2. growth, one aligned step at a time, of the group whose width is the smallest fraction of its proposal (ties: the
       first), among those that still fit.

    Args:
        cost: Costs of widths.
        ladder: Allowed widths.
        widths: Proposals `(B, G)`, float or integer.
        limits: Absolute limits, for all candidates or for each; the lowest widths must fit.

    Returns:
        int64 `(B, G)`.
    """
    if not ladder.dense.numel():
        return widths.long()
    proposal = torch.minimum(torch.maximum(widths.double(), ladder.lowest.double()), ladder.dense.double())

    def scaled(factor: Tensor) -> Tensor:
        return ladder.down((factor[:, None] * proposal + 1e-9).floor().long())

    limits = {name: torch.as_tensor(limit, dtype=torch.float64).expand(len(proposal)) for name, limit in limits.items()}
    low, high = torch.zeros(len(proposal), dtype=torch.float64), (ladder.dense / proposal).amax(1)
    low = torch.where(fits(cost, scaled(high), limits), high, low)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        fit = fits(cost, scaled(middle), limits)
        low, high = torch.where(fit, middle, low), torch.where(fit, high, middle)
    return _grow(cost, ladder, scaled(low), proposal, limits)


def _grow(cost: CostModel, ladder: Ladder, widths: Tensor, proposal: Tensor, limits: Mapping[str, Tensor]) -> Tensor:
    """Widen groups one step at a time until none can be widened; a group that does not fit never fits later."""
    widths = widths.clone()
    closed = widths >= ladder.highest
    rows = torch.arange(len(widths))
    while len(rows := rows[~closed[rows].all(1)]):
        fraction = torch.where(closed[rows], torch.inf, widths[rows] / proposal[rows])
        group = fraction.argmin(1)
        stepped = widths[rows]
        stepped.scatter_(1, group[:, None], ladder.wider(stepped).gather(1, group[:, None]))
        fit = fits(cost, stepped, {name: limit[rows] for name, limit in limits.items()})
        widths[rows] = torch.where(fit[:, None], stepped, widths[rows])
        closed[rows, group] = ~fit | (widths[rows, group] >= ladder.highest[group])
    return widths
