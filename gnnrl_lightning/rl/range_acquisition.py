"""Acquisition over a range of budgets: every candidate is made for one of them, and tells about all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count as counted
from itertools import islice

import torch
from torch import Tensor

from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.processes import rank, share, world_size
from gnnrl_lightning.rl.acquisition import VARIATIONS, Acquisition
from gnnrl_lightning.rl.env.imagination import PARENTS, Imagination
from gnnrl_lightning.rl.env.proposals import Proposals
from gnnrl_lightning.search.knowledge import Knowledge
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.search.variations import SPREAD, first_variations, parents_among, variations_of
from gnnrl_lightning.seeds import generator_for

ROUNDS = 10
"""Rounds of variations, each of the best of the round before, in which the posterior mean is maximised at the end."""

TRIES = 64
"""Limits at which a round looks for new candidates, most of them in vain if nearly all are known."""

Function = Callable[[Tensor], Tensor]
"""Candidates `(n, G)` -> rewards `(1, n)`."""


class RangeAcquisition(Acquisition):
    """Scores candidates for budgets all over a range, and at the end the best one for each of some budgets.

    The elasticities of the groups hardly depend on the budget, so the surrogate learns from candidates of all budgets.
    Each candidate has a limit of its own, and limits are spread evenly over the range, however many there are. What is
    known, what the policy imagines and variations of what a function prefers are projected onto that limit.

    Args:
        problem: Scores and counts the candidates.
        knowledge: What is known of candidates.
        imagination: Draws the functions.
        proposer: Name under which the candidates are counted.
        macs_range: Smallest and largest limit, shares of the dense MACs.
        shares: Limits for which `score_front` scores a candidate each.
        proposals: Widths of an allocation at any limit.

    Attributes:
        figures: As of `Acquisition`, without `search/distance`: no candidate is the best one at all budgets.
    """

    def __init__(
        self,
        problem: SearchProblem,
        knowledge: Knowledge,
        imagination: Imagination,
        proposer: str,
        macs_range: tuple[float, float],
        shares: Sequence[float],
        proposals: Proposals,
    ) -> None:
        super().__init__(problem, knowledge, imagination, proposer)
        self.macs_range, self.shares, self.proposals = macs_range, tuple(shares), proposals
        self.reserved = 1 + len(self.shares)

    def _ask(
        self, widths: Tensor, partial: Tensor, count: int, generator: torch.Generator
    ) -> tuple[list[Evaluation], Tensor]:
        surrogate, moved = self.imagination.surrogate, torch.cat([widths.double(), partial])
        functions: list[Function] = [self.imagination.functions(1, generator) for _ in range(count)]
        if rank() == 0 and functions:  # the other processes would ask for the same one
            functions[-1] = lambda pool: -surrogate.mean(pool)[None]
        limits, asked, imagined = self._limits(), list[Evaluation](), [widths[:0]]
        for macs in islice(limits, TRIES):
            if len(asked) == count:
                break
            fresh = self.problem.unseen(self.problem.project(moved, macs))
            pool = self._pool(fresh, functions[len(asked)], macs, generator)
            if len(pool):  # else everything near the best ones at this limit is known
                asked.append(self.problem.ask(pool[functions[len(asked)](pool)[0].argmax()], self.proposer))
                imagined.append(fresh)
        return asked, torch.cat(imagined).unique(dim=0)

    def _limits(self) -> Iterator[float]:
        """Limits of this process's next candidates, spread evenly over the range together with those before."""
        low, high = self.macs_range
        first = rank() + sum(item.proposer == self.proposer for item in self.problem.history)
        return (low + (high - low) * radical_inverse(place) for place in counted(first, world_size()))

    def _pool(self, fresh: Tensor, function: Function, macs: float, generator: torch.Generator) -> Tensor:
        """New candidates at a limit `(n, G)`, of which the function's best one is scored."""
        parents = self._parents(self._known(macs), function)
        if self._knows_little:
            first = first_variations(self.problem, parents[0], 1, SPREAD, generator, macs)
            if len(first):
                return first
        varied = variations_of(self.problem, parents, VARIATIONS, generator, macs)
        return self.problem.unseen(torch.cat([fresh, varied]))

    def _squares(self, widths: Tensor) -> list[float]:
        return []

    def _known(self, macs: float | None) -> Tensor:
        """All candidates so far and the allocation, projected onto a limit: distinct ones `(n, G)`."""
        history = torch.tensor([item.widths for item in self.problem.history], dtype=torch.float64)
        share = self.problem.limits.share("macs") if macs is None else macs
        proposal = self.proposals(torch.tensor([share])).double()
        return self.problem.project(torch.cat([history, proposal]), macs).unique(dim=0)

    @staticmethod
    def _parents(candidates: Tensor, function: Function) -> Tensor:
        """The best of some candidates by a function, see `parents_among`."""
        ranked = candidates[function(candidates)[0].argsort(descending=True, stable=True)]
        return ranked[parents_among(ranked, PARENTS)]

    def score_front(self, advance: Callable[[], None] = lambda: None) -> dict[float, Evaluation]:
        """Score what the posterior mean prefers at the budget and at each of the shares; a collective call.

        Evaluations are kept for this, see `EpisodeOptions.reserved`. What has been scored is not scored again.

        Args:
            advance: Called after each of the candidates that this process scores.

        Returns:
            Share of the dense MACs -> the best of all candidates that need no more.
        """
        problem, surrogate = self.problem, self.imagination.surrogate
        mean: Function = lambda pool: -surrogate.mean(pool)[None]  # noqa: E731
        for number, macs in share([*enumerate((None, *self.shares))]):
            best = problem.unseen(self._maximiser(mean, macs, generator_for(number))[None])
            if len(best) and problem.left:
                problem.ask(best[0], self.proposer)
            advance()
        problem.exchange()
        ranked = problem.ranked()
        found = {macs: next((item for item in ranked if self._meets(item, macs)), None) for macs in self.shares}
        return {macs: item for macs, item in found.items() if item is not None}

    def _meets(self, item: Evaluation, macs: float) -> bool:
        return bool(self.problem.limits.met(torch.tensor(item.widths), self.problem.limits_at(macs)))

    def _maximiser(self, function: Function, macs: float | None, generator: torch.Generator) -> Tensor:
        """The widths `(G,)` that maximise a function at a limit, as far as variations of the best ones lead."""
        parents = self._parents(self._known(macs), function)
        for _ in range(ROUNDS):
            varied = variations_of(self.problem, parents, VARIATIONS, generator, macs)
            parents = self._parents(torch.cat([parents, varied]).unique(dim=0), function)
        return parents[0]


def radical_inverse(number: int) -> float:
    """The van der Corput sequence in base 2: 0, 1/2, 1/4, 3/4, 1/8, ..., spread evenly however far it goes.

    Args:
        number: Place in the sequence, from 0.
    """
    inverse, unit = 0.0, 1.0
    while number:
        unit /= 2
        number, digit = divmod(number, 2)
        inverse += digit * unit
    return inverse
