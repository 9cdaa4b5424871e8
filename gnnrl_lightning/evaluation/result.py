"""Evaluations of candidates, and the best of several."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.evaluation.racing import Course

DIVERGENCE = "divergence"
"""Name of the score that every objective has: the mean distance to the dense network's outputs."""


@dataclass(frozen=True)
class Evaluation:
    """A scored candidate.

    Attributes:
        widths: Width of each group.
        costs: Metric -> cost, for MACs, parameters and the other metrics of the budget.
        scores: Name -> score on the holdout: those of the objective, and `divergence` from the dense network. Infinite
            if outputs are NaN; estimates if the candidate was dropped.
        merit: Ranking key, higher is better: the reward, if the evaluator has one, the primary score, negated if lower
            is better, then the tie-breakers.
        seconds: Duration of the evaluation; 0 if it was cached.
        examples: Number of forward passes of one example, including calibration; 0 if it was cached.
        proposer: Proposer of the candidate: "agent", or the name of a starting candidate or search method.
        seen: Number of examples of the holdout on which the scores are based.
        dropped: Whether the candidate was dropped from a race, see `racing`.
        course: Results by stage for later races; None if the candidate was dropped or racing is off.
    """

    widths: tuple[int, ...]
    costs: dict[str, int | float]
    scores: dict[str, float]
    merit: tuple[float, ...]
    seconds: float
    examples: int
    proposer: str
    seen: int = 0
    dropped: bool = False
    course: Course | None = None

    def as_record(self) -> dict[str, Any]:
        """The evaluation in plain JSON types, except floats that are not finite, see `Journal`."""
        course = None if self.course is None else self.course.as_record()
        return asdict(self) | {"widths": list(self.widths), "merit": list(self.merit), "course": course}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Evaluation:
        """Read an evaluation from a journal's record, exactly; other keys are ignored, null stands for infinity."""
        values = {item.name: record[item.name] for item in fields(cls)}
        values["widths"] = tuple(values["widths"])
        values["scores"] = {name: math.inf if value is None else value for name, value in values["scores"].items()}
        values["merit"] = tuple(-math.inf if value is None else value for value in values["merit"])
        if values["course"] is not None:
            values["course"] = Course.from_record(values["course"])
        return cls(**values)


def best_of(evaluations: Iterable[Evaluation], proposer: str | None = None) -> Evaluation | None:
    """The evaluation with the highest merit (ties: the first); None without evaluations.

    Dropped candidates rank behind all others.

    Args:
        evaluations: Evaluations, in the order of the requests.
        proposer: Restrict to candidates of this proposer; None: all.
    """
    asked = (item for item in evaluations if proposer in (None, item.proposer))
    return max(asked, key=lambda item: (not item.dropped, item.merit), default=None)


def within(limits: BoundBudget, evaluation: Evaluation) -> bool:
    """Whether a candidate meets a budget; a policy for several budgets also evaluates candidates that do not."""
    return bool(limits.met(torch.tensor(evaluation.widths)))
