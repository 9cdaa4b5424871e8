"""What is known of a scored candidate, and which of several is the best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.evaluation.racing import Course


@dataclass(frozen=True)
class Evaluation:
    """One candidate, scored.

    Attributes:
        widths: Width of each group.
        costs: Metric -> cost: of MACs, parameters, and whatever else the budget names.
        scores: Name -> figure on the holdout, of those of the objective, `divergence` from the dense network included;
            infinite where outputs are not numbers, and estimates if the candidate was dropped.
        merit: What candidates are ranked by, the higher the better: the primary figure, negated if lower is better,
            then what breaks its ties.
        seconds: Time that the evaluation took; 0 if the candidate was known.
        examples: Forward passes of one example that it took, calibration included; likewise.
        proposer: Who proposed it: "agent", or the name of a starting candidate.
        seen: Examples of the holdout that its scores come from.
        dropped: Whether it fell behind in a race, see `racing`, and was not scored on the whole holdout.
        course: What later races against it need; None if it was dropped, or where nothing races.
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
        """The evaluation in plain JSON types, but for floats that are not finite, see `Journal`."""
        course = None if self.course is None else self.course.as_record()
        return asdict(self) | {"widths": list(self.widths), "merit": list(self.merit), "course": course}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Evaluation:
        """The evaluation of a journal's record, exactly: other keys are left out, null stands for infinity."""
        values = {item.name: record[item.name] for item in fields(cls)}
        values["widths"] = tuple(values["widths"])
        values["scores"] = {name: math.inf if value is None else value for name, value in values["scores"].items()}
        values["merit"] = tuple(-math.inf if value is None else value for value in values["merit"])
        if values["course"] is not None:
            values["course"] = Course.from_record(values["course"])
        return cls(**values)


def best_of(evaluations: Iterable[Evaluation], proposer: str | None = None) -> Evaluation | None:
    """The evaluation of the highest merit, the first of several; None of none.

    One that was dropped is the best only among others that were.

    Args:
        evaluations: In the order in which they were asked for.
        proposer: Whose; None: anybody's.
    """
    asked = (item for item in evaluations if proposer in (None, item.proposer))
    return max(asked, key=lambda item: (not item.dropped, item.merit), default=None)


def within(limits: BoundBudget, evaluation: Evaluation) -> bool:
    """Whether a candidate meets a budget: a policy for all budgets also evaluates some that do not."""
    return bool(limits.met(torch.tensor(evaluation.widths)))
