"""Rounds of evaluations: of the candidates that a policy imagines, the most promising ones are scored."""

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
from gnnrl_lightning.search.variations import ask_maximisers, unseen, variations
from gnnrl_lightning.seeds import generator_for
from gnnrl_lightning.surrogate.diagnostics import kendall
from gnnrl_lightning.surrogate.model import Surrogate

VARIATIONS = 256
"""Variations of the best candidates, if a policy imagines too few new ones."""

PARTS = 16
"""Partial moves of each imagined episode."""

LONGEST = 1.5
"""A partial move is at most this many times as long as the policy's."""


class Rounds:
    """Scores the most promising candidates of imagined episodes.

    They maximise functions drawn from the surrogate's posterior; in the first process, the last one maximises its mean.
    Each episode moves from a proposal to its final widths: parts of that move, in some of the groups, are candidates
    too. A candidate that has been scored is never asked for again; if too few are new, the best ones are varied.

    Args:
        problem: Scores and counts the candidates.
        knowledge: What is known of candidates; slopes are measured before a search's first round and after each one.
        imagination: Draws the functions.
        proposer: Name under which the candidates are counted.

    Attributes:
        figures: Name -> figure of the last round, for logs: `search/new`, the imagined candidates that had not been
            scored; `search/distance`, root mean square difference of their log keep ratios from those of the best
            candidate; `surrogate/tau`, Kendall's rank correlation of the rewards so far with the surrogate's
            predictions before it knew them. All processes have the same names; none if nothing was scored.
        predicted: Predicted and actual rewards of all processes so far.
    """

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
        count = min(count, len(share(range(self.problem.left))))
        pool = fresh = unseen(self.problem, torch.cat([widths, self._partial(widths, generator)]))
        if len(pool) < count:
            pool = torch.cat([pool, variations(self.problem, PARENTS, VARIATIONS, generator)]).unique(dim=0)
        surrogate, asked = self.imagination.surrogate, list[Evaluation]()
        if count:
            functions = self.imagination.functions(count, generator)(pool)
            if rank() == 0:  # the other processes would ask for the same one
                functions[-1] = -surrogate.mean(pool)
            asked = ask_maximisers(self.problem, pool, functions, self.proposer)
        rewards = torch.tensor([float(self.knowledge.reward(item)) for item in asked])
        self._record([item.widths for item in asked], rewards, len(fresh), surrogate)
        return rewards

    def _partial(self, widths: Tensor, generator: torch.Generator) -> Tensor:
        """Candidates between the proposals of the episodes and their final widths, in some of the groups."""
        start = positive(self.imagination.start.repeat(PARTS, 1).double())
        change = (positive(widths.repeat(PARTS, 1).double()) / start).log()
        share = torch.rand(len(start), 1, generator=generator).clamp(min=2 / start.shape[1])
        chosen = torch.rand(start.shape, generator=generator) < share
        size = LONGEST * torch.rand(len(start), 1, generator=generator, dtype=torch.float64)
        return self.problem.project(start * (size * chosen * change).exp())

    def _record(self, asked: list[tuple[int, ...]], rewards: Tensor, fresh: int, surrogate: Surrogate) -> None:
        """Set the figures of a round of all processes, whose surrogate did not know its rewards."""
        widths = torch.tensor(asked, dtype=torch.int64).view(-1, len(surrogate.terms.dense))
        expected = -surrogate.mean(widths)
        logs = surrogate.terms.logs(widths)
        best = surrogate.terms.logs(torch.tensor([self.problem.ranked()[0].widths]))
        squared = (logs - best).square().mean(1).tolist()
        parts = of_all((fresh, squared, list(zip(expected.tolist(), rewards.tolist(), strict=True))))
        self.predicted += [pair for _, _, pairs in parts for pair in pairs]
        squares = [value for _, part, _ in parts for value in part]
        self.figures = {}
        if not squares:
            return
        self.figures["search/new"] = sum(number for number, _, _ in parts) / len(parts)
        self.figures["search/distance"] = math.sqrt(sum(squares) / len(squares))
        tau = kendall([pair[0] for pair in self.predicted], [pair[1] for pair in self.predicted])
        if tau is not None:
            self.figures["surrogate/tau"] = tau
