"""Short trainings of the best candidates of a search, which choose the one that is delivered."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.evaluation.history import Journalled
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.evaluation.result import Evaluation, within
from gnnrl_lightning.job.trained import Trained
from gnnrl_lightning.objective import Objective
from gnnrl_lightning.objective.protocol import WORST
from gnnrl_lightning.processes import rank, world_size
from gnnrl_lightning.search.finals import Finals

FINALIST = "finalist"
"""Proposer of the trained candidates in their journal."""


@dataclass(frozen=True)
class Played:
    """The finalists of a search.

    Attributes:
        winner: The candidate to deliver, as it was scored in the search.
        trained: The finalists in the order of their training, as they were scored after it.
        seconds: Duration, seconds, without interruptions.
    """

    winner: Evaluation
    trained: tuple[Evaluation, ...]
    seconds: float

    @property
    def examples(self) -> int:
        """Forward passes of single examples; a step of training counts as three."""
        return sum(item.examples for item in self.trained)

    def as_record(self, objective: Objective) -> dict[str, Any]:
        """Return the figures in plain JSON types: what the finalists scored after their training, and what it took."""
        names = objective.ranking
        rows = [{**{name: item.scores[name] for name in names}, "widths": list(item.widths)} for item in self.trained]
        return {"trained": rows, "examples": self.examples, "seconds": self.seconds}


def play(
    trained: Trained, limits: BoundBudget, history: Sequence[Evaluation], best: Evaluation, journal: Journal
) -> Played:
    """Train the most promising candidates of a search for a few steps, one after the other, and choose among them.

    They start from the network that would be delivered, and are scored on the holdout. With several processes, each
    trains one at a time.

    Args:
        trained: The job with its trained dense network; `finals` of its options says how many candidates are trained.
        limits: The budget of the search.
        history: The evaluations of the search.
        best: The best of these, which is always a finalist.
        journal: Journal of the trainings; those that it has are not repeated.
    """
    began, options, goal = time.perf_counter(), trained.job.options.finals, trained.job.task.goal
    known = {item.widths: item for item in history if not item.dropped and within(limits, item)}
    known = {best.widths: best, **known}
    candidates = [item for item in known.values() if -WORST < item.merit[0]]
    if not candidates:
        return _unchanged(best)
    finals = Finals(
        trained.job.graph.widths,
        torch.tensor([item.widths for item in candidates]),
        torch.tensor([-item.merit[0] for item in candidates], dtype=torch.float64),
    )
    evaluate = Journalled(trained.finals_evaluator(), journal, limits.ratios)
    losses, played, failed = dict[int, float](), list[Evaluation](), list[int]()
    count = min(options.candidates, len(finals.eligible))
    with trained.job.runtime.shown("finalists", count) as advance:
        while len(played) < count:
            chosen = finals.next(losses, failed, min(world_size(), count - len(played)))
            mine = chosen[rank() : rank() + 1]
            own = [evaluate(torch.tensor(candidates[number].widths), FINALIST) for number in mine]
            for number, item in zip(chosen, evaluate.settle(own), strict=True):
                loss = loss_after(item, goal)
                if loss < WORST:
                    losses[number] = loss
                else:
                    failed.append(number)
                played.append(item)
                advance()
    seconds = max(time.perf_counter() - began, sum(item.seconds for item in played))
    if not losses:
        return _unchanged(best, played, seconds)
    return Played(candidates[finals.best(losses)], tuple(played), seconds)


def _unchanged(best: Evaluation, played: Sequence[Evaluation] = (), seconds: float = 0.0) -> Played:
    """Keep the best evaluation, and warn of it."""
    warnings.warn("no finalist could be trained: the best evaluation is delivered", stacklevel=3)
    return Played(best, tuple(played), seconds)


def loss_after(evaluation: Evaluation, objective: Objective) -> float:
    """The loss by which finalists are compared, the lower the better; `WORST` if it is not finite.

    It is the logarithm of the last figure that ranks candidates, which breaks ties of the others: of the cross-entropy,
    for a classifier. Figures of which more is better are negated rewards.
    """
    name = objective.ranking[-1]
    figure = objective.figures[name]
    return -replace(figure, logarithmic=not figure.higher_is_better).reward(evaluation.scores[name])
