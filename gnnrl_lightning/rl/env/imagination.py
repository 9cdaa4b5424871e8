"""Imagined episodes: scored by functions that are drawn from the surrogate, another one for each episode."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.cost.ranges import positive
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.search.variations import parents_among
from gnnrl_lightning.surrogate.mixture import Surrogate

SLOPES = 2
"""Features of a group in imagined episodes: slopes of the reward towards narrower and wider ones."""

STEP = 0.25
"""Change of a log keep ratio, either way, over which a slope is taken."""

PARENTS = 6
"""Number of candidates from which episodes start, see `parents_among`."""


class Imagination:
    """What imagined episodes start from, what the policy sees of their functions, and their rewards.

    Each episode has a function drawn from the posterior of the surrogate: the policy learns to maximise all of them
    (Thompson sampling by a policy, if `exploration` is 1). It sees the function in its slopes: the change in reward
    when one group of the proposal is narrowed or widened, in units of their root mean square over the groups.

    Args:
        graph: The traced network.
        limits: The budget, bound to the graph.
        surrogate: Returns the surrogate, conditioned on what is known so far.
        evaluated: Returns the evaluations so far: widths `(n, G)` and rewards `(n,)`.
        exploration: Share of their deviations from the posterior mean that the drawn functions keep, see
            `Surrogate.draw`.
        ranged: Whether each episode has a budget of its own: it then starts from known candidates that are projected
            onto it and ranked by its function.

    Attributes:
        start: Proposed widths `(B, G)` of the episodes.
    """

    start: Tensor

    def __init__(
        self,
        graph: ComputationGraph,
        limits: BoundBudget,
        surrogate: Callable[[], Surrogate],
        evaluated: Callable[[], tuple[Tensor, Tensor]],
        exploration: float = 1.0,
        ranged: bool = False,
    ) -> None:
        self.graph, self.limits = graph, limits
        self._surrogate, self.evaluated, self.exploration, self.ranged = surrogate, evaluated, exploration, ranged

    @property
    def surrogate(self) -> Surrogate:
        """The surrogate, conditioned on what is known so far."""
        return self._surrogate()

    def functions(self, count: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        """Functions from candidates `(m, G)`, or `(count, m, G)`, to rewards `(count, m)`."""
        draws = self.surrogate.draw(count, generator, self.exploration)
        return lambda widths: -draws(widths)

    def begin(self, proposals: Tensor, limits: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Start episodes.

        Args:
            proposals: Widths `(B, G)` of an allocation.
            limits: Absolute limits `(B,)` of each metric.
            generator: Draws functions and proposals.

        Returns:
            Proposed widths `(B, G)`, each one of the best candidates that meet the episode's limits, or are projected
            onto them, or the allocation; and the slopes `(B, G, 2)`.
        """
        count = len(proposals)
        self._functions = self.functions(count, generator)
        if self.ranged:
            start = self._projected(proposals, limits, generator)
        else:
            start = self._known(proposals, generator)
        self.start = start
        self._level = self._functions(start[:, None].long())[:, 0]
        return start, self._slopes(start)

    def rewards(self, widths: Tensor, episodes: Tensor) -> Tensor:
        """Rewards `(n,)` of candidates `(n, G)` by the functions of their episodes `(n,)`; a proposal has 0."""
        everything = self.graph.widths.repeat(len(self._level), 1)
        everything[episodes] = widths
        return (self._functions(everything[:, None])[:, 0] - self._level)[episodes].float()

    def _known(self, proposals: Tensor, generator: torch.Generator) -> Tensor:
        """Any of the best known candidates within the budget; the allocation if there are none."""
        widths, rewards = self.evaluated()
        fits = self.limits.met(widths)
        if not fits.any():
            return proposals
        ranked = widths[fits][rewards[fits].argsort(descending=True, stable=True)]
        parents = ranked[parents_among(ranked, PARENTS)]
        return parents[torch.randint(len(parents), (len(proposals),), generator=generator)].to(proposals)

    def _projected(self, proposals: Tensor, limits: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        """Known candidates and the allocation, projected onto the limits; of the best ones any, by each function."""
        known = self.evaluated()[0].unique(dim=0).to(proposals)
        given = torch.cat([known.expand(len(proposals), -1, -1), proposals[:, None]], 1)
        each = given.shape[1]
        repeated = {name: limit.repeat_interleave(each) for name, limit in limits.items()}
        projected = self.limits.project(given.flatten(0, 1), repeated).view_as(given)
        chosen, order = proposals.clone(), self._functions(projected).argsort(dim=1, descending=True, stable=True)
        for row, (own, ranks) in enumerate(zip(projected, order, strict=True)):
            parents = parents_among(own[ranks], PARENTS)
            chosen[row] = own[ranks[parents[int(torch.randint(len(parents), (), generator=generator))]]].to(chosen)
        return chosen

    def _slopes(self, start: Tensor) -> Tensor:
        count, groups = start.shape
        changed = self._neighbours(start)
        change = self._functions(changed) - self._level[:, None]
        # Per unit of the log keep ratio: integer widths change by other factors.
        logs = (positive(changed.double()) / positive(start[:, None].double())).log()
        own = torch.cat([logs[:, :groups].diagonal(dim1=1, dim2=2), logs[:, groups:].diagonal(dim1=1, dim2=2)], 1)
        slopes = torch.where(own.abs() > 0, change / own.where(own.abs() > 0, torch.ones(())), torch.zeros(()))
        slopes = slopes.view(count, 2, groups).transpose(1, 2)
        scale = slopes.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-9)
        return (slopes / (3 * scale)).clamp(-1, 1).float()

    def _neighbours(self, start: Tensor) -> Tensor:
        """Widths `(B, 2 G, G)` int64 that differ from `start (B, G)` in one group, narrower or wider."""
        eye = torch.eye(start.shape[1], dtype=torch.float64)
        factors = torch.cat([(-STEP * eye).exp(), (STEP * eye).exp()])
        lowest, highest = self.graph.ranges.lowest, self.graph.ranges.highest
        varied = (start[:, None].double() * factors).round().long()
        changed = torch.minimum(torch.maximum(varied, lowest), highest)
        removable = self.limits.allowed.removable
        if removable is None:
            return changed
        narrower, wider = factors < 1, factors > 1
        absent = (start[:, None] == 0) & ~wider
        return changed.masked_fill(absent | (removable & narrower & (start[:, None] <= 1)), 0)
