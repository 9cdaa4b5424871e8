"""What is known of a scored candidate, and which of several is the best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
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
        top1: Top-1 accuracy on the search split, percent; like the two losses an estimate if it was dropped.
        cross_entropy: Mean cross-entropy on the search split, nats; infinite if the outputs are not numbers.
        divergence: Mean Kullback-Leibler divergence KL(dense || candidate) of the outputs there, nats; likewise.
        seconds: Time that the evaluation took; 0 if the candidate was known.
        images: Forward passes of one image that it took, calibration included; likewise.
        proposer: Who proposed it: "agent", or the name of a starting candidate.
        seen: Images of the search split that its scores come from.
        dropped: Whether it fell behind in a race, see `racing`, and was not scored on the whole split.
        course: What later races against it need; None if it was dropped, or where nothing races.
    """

    widths: tuple[int, ...]
    costs: dict[str, int | float]
    top1: float
    cross_entropy: float
    divergence: float
    seconds: float
    images: int
    proposer: str
    seen: int = 0
    dropped: bool = False
    course: Course | None = None

    def as_record(self) -> dict[str, Any]:
        """The evaluation in plain JSON types, but for floats that are not finite, see `Journal`."""
        course = None if self.course is None else self.course.as_record()
        return asdict(self) | {"widths": list(self.widths), "course": course}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Evaluation:
        """The evaluation of a journal's record, exactly: other keys are left out, null stands for infinity.

        A record from before there were races lacks what they need.
        """
        given = (field.name for field in fields(cls) if field.default is MISSING or field.name in record)
        values = {name: record[name] for name in given}
        values["widths"] = tuple(values["widths"])
        for name in ("cross_entropy", "divergence"):
            values[name] = math.inf if values[name] is None else values[name]
        if values.get("course") is not None:
            values["course"] = Course.from_record(values["course"])
        return cls(**values)


def best_of(evaluations: Iterable[Evaluation], proposer: str | None = None) -> Evaluation | None:
    """The evaluation with the highest top-1, then the lowest cross-entropy, then the first; None of none.

    One that was dropped is the best only among others that were.

    Args:
        evaluations: In the order in which they were asked for.
        proposer: Whose; None: anybody's.
    """
    asked = (item for item in evaluations if proposer in (None, item.proposer))
    return max(asked, key=lambda item: (not item.dropped, item.top1, -item.cross_entropy), default=None)


def within(limits: BoundBudget, evaluation: Evaluation) -> bool:
    """Whether a candidate meets a budget: a policy for all budgets also evaluates some that do not."""
    return bool(limits.met(torch.tensor(evaluation.widths)))
