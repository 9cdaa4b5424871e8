"""Acquisition: of the candidates that a policy imagines, the most promising ones are scored, round by round."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gnnrl_lightning.cost.ranges import positive
from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.processes import of_all, rank, share
from gnnrl_lightning.rl.env.imagination import PARENTS, Imagination
from gnnrl_lightning.search.knowledge import Knowledge
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.search.variations import SPREAD, ask_maximisers, first_count, first_variations, variations
from gnnrl_lightning.seeds import generator_for
from gnnrl_lightning.surrogate.diagnostics import kendall
from gnnrl_lightning.surrogate.mixture import Surrogate

VARIATIONS = 2000
"""Variations of the best candidates, among which functions are maximised beside those that the policy imagines."""

PARTS = 16
"""Partial moves of each imagined episode."""

LONGEST = 1.5
"""A partial move is at most this many times as long as the policy's."""


class Acquisition:
    """Scores the most promising candidates of imagined episodes.

    They maximise functions drawn from the surrogate's posterior; in the first process, the last one maximises its mean.
    Each episode moves from a proposal to its final widths: parts of that move, in some of the groups, are candidates
    too, and so are variations of the best ones so far. A candidate that has been scored is never asked for again.

    Args:
        problem: Scores and counts the candidates.
        knowledge: What is known of candidates.
        imagination: Draws the functions.
        proposer: Name under which the candidates are counted.

    Attributes:
        figures: Name -> figure of the last round, for logs: `search/new`, the imagined candidates that had not been
            scored; `search/imagined`, the share of the scored ones that the policy has imagined; `search/distance`,
            root mean square difference of their log keep ratios from those of the best candidate; `surrogate/tau`,
            Kendall's rank correlation of the rewards so far with the surrogate's predictions before it knew them. All
            processes have the same names; none if nothing was scored.
        predicted: Predicted and actual rewards of all processes so far.
        reserved: Evaluations that rounds leave for later.
    """

    reserved = 0

    def __init__(self, problem: SearchProblem, knowledge: Knowledge, imagination: Imagination, proposer: str) -> None:
        self.problem, self.knowledge, self.imagination, self.proposer = problem, knowledge, imagination, proposer
        self.figures: dict[str, float] = {}
        self.predicted: list[tuple[float, float]] = []

    def __call__(self, widths: Tensor, count: int, seed: int) -> Tensor:
        """Score candidates; a collective call.

        Args:
            widths: Final widths `(n, G)` of imagined episodes.
            count: Number of candidates to score; fewer if the evaluations left, shared by all processes, are fewer.
            seed: Of the functions and variations.

        Returns:
            Rewards `(m,)`, m at most count.
        """
        generator = generator_for(seed)
        count = min(count, len(share(range(self.problem.left - self.reserved))))
        partial, surrogate = self._partial(widths, generator), self.imagination.surrogate
        asked, imagined = self._ask(widths, partial, count, generator)
        rewards = torch.tensor([float(self.knowledge.reward(item)) for item in asked])
        self._record([item.widths for item in asked], rewards, imagined, surrogate)
        return rewards

    def _ask(
        self, widths: Tensor, partial: Tensor, count: int, generator: torch.Generator
    ) -> tuple[list[Evaluation], Tensor]:
        """Score the most promising candidates.

        Args:
            widths: Final widths of the imagined episodes `(n, G)`.
            partial: Proposals between those that they start from and these `(m, G)`.
            count: Number of candidates to score.
            generator: Of functions and variations.

        Returns:
            The evaluations; and the new candidates that the policy imagines `(k, G)`.
        """
        surrogate, asked = self.imagination.surrogate, list[Evaluation]()
        fresh = self.problem.unseen(torch.cat([widths, self.problem.project(partial)]))
        if self._knows_little:
            best = torch.tensor(self.problem.ranked()[0].widths)
            first = first_variations(self.problem, best, count, SPREAD, generator)
            asked += [self.problem.ask(row, self.proposer) for row in first]
        if len(asked) < count:
            varied = variations(self.problem, PARENTS, VARIATIONS, generator)
            pool = self.problem.unseen(torch.cat([fresh, varied]))
            functions = self.imagination.functions(count - len(asked), generator)(pool)
            if rank() == 0:  # the other processes would ask for the same one
                functions[-1] = -surrogate.mean(pool)
            asked += ask_maximisers(self.problem, pool, functions, self.proposer)
        return asked, fresh

    @property
    def _knows_little(self) -> bool:
        return sum(item.proposer == self.proposer for item in self.problem.history) < first_count(self.problem)

    def _partial(self, widths: Tensor, generator: torch.Generator) -> Tensor:
        """Proposals between those that episodes start from and their final widths, in some of the groups."""
        first, last = self.imagination.start.repeat(PARTS, 1).double(), widths.repeat(PARTS, 1).double()
        start = positive(first)
        change = (positive(last) / start).log()
        share = torch.rand(len(start), 1, generator=generator).clamp(min=2 / start.shape[1])
        chosen = torch.rand(start.shape, generator=generator) < share
        size = LONGEST * torch.rand(len(start), 1, generator=generator, dtype=torch.float64)
        moved = start * (size * chosen * change).exp()
        whole = (first < 1) | (last < 1)  # a group goes or comes back entirely, if at all
        return torch.where(whole, torch.where(chosen, last, first), moved)

    def _record(self, asked: list[tuple[int, ...]], rewards: Tensor, fresh: Tensor, surrogate: Surrogate) -> None:
        """Set the figures of a round of all processes, whose surrogate did not know its rewards."""
        widths = torch.tensor(asked, dtype=torch.int64).view(-1, len(surrogate.terms.dense))
        pairs = list(zip((-surrogate.mean(widths)).tolist(), rewards.tolist(), strict=True))
        imagined = len({*asked} & {*map(tuple, fresh.tolist())})
        parts = of_all((len(fresh), imagined, self._squares(widths), pairs))
        new, imagined, squares, predicted = zip(*parts, strict=True)
        count = sum(map(len, predicted))
        self.predicted += [pair for part in predicted for pair in part]
        self.figures = {}
        if not count:
            return
        self.figures["search/new"] = sum(new) / len(new)
        self.figures["search/imagined"] = sum(imagined) / count
        if any(squares):
            self.figures["search/distance"] = math.sqrt(sum(map(sum, squares)) / count)
        tau = kendall([pair[0] for pair in self.predicted], [pair[1] for pair in self.predicted])
        if tau is not None:
            self.figures["surrogate/tau"] = tau

    def _squares(self, widths: Tensor) -> list[float]:
        """Mean square differences of the log keep ratios of candidates `(n, G)` from those of the best one so far."""
        terms = self.knowledge.terms
        best = terms.logs(torch.tensor([self.problem.ranked()[0].widths]))
        return (terms.logs(widths) - best).square().mean(1).tolist()
