"""Short trainings of the best candidates of a search, which choose the one that is delivered."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from gnnrl_lightning.evaluation.history import Journalled
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.job.searched import Finalists, Searched
from gnnrl_lightning.objective import Objective
from gnnrl_lightning.objective.protocol import WORST
from gnnrl_lightning.processes import rank, world_size
from gnnrl_lightning.search.finals import Finals

FINALIST = "finalist"
"""Proposer of the trained candidates in their journal."""


def with_finals(searched: Searched, saved: Path | None = None) -> Searched:
    """Train the most promising candidates of a search for a few steps, one after the other, and choose among them.

    `finals` of the options says how many; with none, nothing is done. They start from the network that would be
    delivered, and are scored on the holdout. With several processes, each trains one at a time. The trainings in the
    file, a journal, are not repeated.
    """
    if searched.trained.job.options.finals.candidates == 0:
        return searched
    began = time.perf_counter()
    candidates = [item for item in searched.ranked() if item.merit[0] not in (-math.inf, -WORST)]
    winner, played = _trained(searched, candidates, saved) if candidates else (None, [])
    if winner is None:
        warnings.warn("no finalist could be trained: the best evaluation is delivered", stacklevel=3)
    seconds = max(time.perf_counter() - began, sum(item.seconds for item in played))
    return replace(searched, best=winner or searched.best, finals=Finalists(tuple(played), seconds))


def _trained(
    searched: Searched, candidates: Sequence[Evaluation], saved: Path | None
) -> tuple[Evaluation | None, list[Evaluation]]:
    """Return the candidate of which most is expected after training, if any can be trained, and the trained ones."""
    trained = searched.trained
    options, goal = trained.job.options.finals, trained.job.task.goal
    finals = Finals(
        trained.job.graph.widths,
        torch.tensor([item.widths for item in candidates]),
        torch.tensor([-item.merit[0] for item in candidates], dtype=torch.float64),
    )
    journal = Journal() if saved is None else trained.journal(saved)
    evaluate = Journalled(trained.final_evaluator(options.steps), journal, trained.job.limits.ratios)
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
    return candidates[finals.best(losses)] if losses else None, played


def loss_after(evaluation: Evaluation, objective: Objective) -> float:
    """The loss by which finalists are compared, the lower the better; `WORST` if it is not finite.

    It is the logarithm of the last figure that ranks candidates, which breaks ties of the others: of the cross-entropy,
    for a classifier. Figures of which more is better are negated rewards.
    """
    name = objective.ranking[-1]
    figure = objective.figures[name]
    return -replace(figure, logarithmic=not figure.higher_is_better).reward(evaluation.scores[name])
