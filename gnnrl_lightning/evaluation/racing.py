"""Racing: candidates are scored on growing parts of the holdout, and candidates that fall behind are dropped.

A candidate is compared with the incumbent, the best candidate so far that was scored on the whole holdout. After each
stage but the last, an exact one-sided sign test is applied to the n examples on which the two scores differ (for scores
right and wrong it is McNemar's test), of which the candidate wins k. A candidate as good as the incumbent wins each
with probability 1/2, so

    P(at most k wins) = sum_{i <= k} C(n, i) / 2^n,

and if this is below drop_probability / (stages - 1), the candidate is dropped. By Bonferroni's inequality a candidate
as good as the incumbent is dropped with a probability of at most `drop_probability`.

The scores of a dropped candidate are estimates. They derive from means over examples, each with the incumbent as
control variate: the incumbent's mean on the whole holdout plus the mean difference on the examples seen,

    m = m_incumbent(all) + mean_seen(candidate - incumbent).

Most examples have the same score for both and cancel. A dropped candidate never ranks first, see `best_of`. If the
primary score is the mean of scores right and wrong, its estimate lies below the incumbent's: with a `drop_probability`
of at most 1/2, the candidate has lost more often than it has won.

Sources: Dixon and Mood (JASA 1946) for the sign test; McNemar (Psychometrika 1947); Maron and Moore (NIPS 1993) for
races.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

STAGES = (0.1, 0.2, 0.4, 1.0)
"""Share of the holdout seen after each stage."""


def stage_ends(sizes: Sequence[int]) -> tuple[int, ...]:
    """Number of batches after each stage of `STAGES`, ascending; a stage is one or more whole batches.

    Args:
        sizes: Examples of each batch.

    Returns:
        For each stage the fewest batches that hold its share. Stages without new batches are omitted, as are stages
        that would hold more than twice their share: racing saves little on a small holdout.
    """
    held = np.cumsum(sizes)
    wanted = np.array(STAGES) * held[-1]
    ends = np.searchsorted(held, wanted - 1e-9) + 1
    return tuple(sorted({int(end) for end, share in zip(ends, wanted, strict=True) if held[end - 1] <= 2 * share}))


def sign_test(wins: int, losses: int) -> float:
    """Exact probability of at most `wins` wins if wins and losses are equally likely."""
    differing = wins + losses
    total = ways = 1  # C(n, 0); each next coefficient from the one before: computed anew, they take minutes
    for k in range(wins):
        ways = ways * (differing - k) // (k + 1)
        total += ways
    return total / 2**differing


Means = dict[str, Tensor]
"""Name -> mean per example of a sum of the objective, float64."""


@dataclass(frozen=True)
class Course:
    """Results of a candidate by stage, for later races against it.

    Attributes:
        examples: Number of examples seen.
        kind: Type of the scores: "bool" or "float32".
        packed: Scores of the examples in order, base64: a bit or four bytes each.
        sums: Sums of the objective over all examples seen after each stage: name -> stage -> elements; NaN is stored
            as infinity.
    """

    examples: int = 0
    kind: str = "bool"
    packed: str = ""
    sums: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)

    def followed_by(self, scores: Tensor, sums: Mapping[str, Sequence[float]]) -> Course:
        """The course after one more stage.

        Args:
            scores: Score of each example of the stage `(n,)`, bool or floating point; NaN counts as the worst score.
            sums: Name -> elements of the sums over these examples.
        """
        new = scores.cpu().numpy()
        kind = "bool" if new.dtype == np.bool_ else "float32"
        if kind == "float32":
            new = np.where(np.isnan(new), -np.inf, new).astype("<f4")
        every = np.concatenate([self.scores(), new]) if self.examples else new
        packed = np.packbits(every) if kind == "bool" else every
        return Course(
            len(every),
            kind,
            base64.b64encode(packed.tobytes()).decode(),
            {name: _added(self.sums.get(name, ()), tuple(more)) for name, more in sums.items()},
        )

    def scores(self) -> np.ndarray:
        """Score of each example `(examples,)`."""
        raw = base64.b64decode(self.packed)
        if self.kind == "float32":
            return np.frombuffer(raw, dtype="<f4")
        return np.unpackbits(np.frombuffer(raw, dtype=np.uint8), count=self.examples).astype(bool)

    def means(self) -> Means:
        """Means over the examples seen."""
        return {name: _tensor([value / self.examples for value in stages[-1]]) for name, stages in self.sums.items()}

    def as_record(self) -> dict[str, Any]:
        """The course in plain JSON types, except infinite sums, see `Journal`."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Course:
        """The inverse of `as_record`, exactly; null stands for infinity."""
        sums = {
            name: tuple(tuple(math.inf if value is None else value for value in stage) for stage in stages)
            for name, stages in record["sums"].items()
        }
        return cls(record["examples"], record["kind"], record["packed"], sums)


def _tensor(elements: Sequence[float]) -> Tensor:
    """Make a float64 tensor; a single element becomes a scalar tensor."""
    made = torch.tensor(elements, dtype=torch.float64)
    return made[0] if len(made) == 1 else made


def _added(stages: tuple[tuple[float, ...], ...], more: tuple[float, ...]) -> tuple[tuple[float, ...], ...]:
    totals = tuple(before + new for before, new in zip(stages[-1], more, strict=True)) if stages else more
    # A network whose outputs are NaN ranks last.
    return (*stages, tuple(total if math.isfinite(total) else math.inf for total in totals))


def hopeless(course: Course, incumbent: Course, stages: int, drop_probability: float) -> bool:
    """Whether to drop a candidate after the stages so far.

    Args:
        course: Course of the candidate on a part of the holdout.
        incumbent: Course of the incumbent on the whole holdout.
        stages: Number of stages, including the last one.
        drop_probability: Probability, over all stages, of dropping a candidate as good as the incumbent, at most 1/2.
    """
    ours, theirs = course.scores(), incumbent.scores()[: course.examples]
    return sign_test(int((ours > theirs).sum()), int((ours < theirs).sum())) < drop_probability / (stages - 1)


def estimate(course: Course, incumbent: Course) -> Means:
    """Estimate a dropped candidate's means over the whole holdout.

    Estimates are at least zero. If a sum of the incumbent is infinite, the candidate's own mean is used.

    Args:
        course: Course of the dropped candidate.
        incumbent: Course of the incumbent on the whole holdout, with the same stages.
    """
    return {
        name: _tensor(
            [
                _control(ours, theirs, before, course.examples, incumbent.examples)
                for ours, theirs, before in zip(
                    stages[-1], incumbent.sums[name][-1], incumbent.sums[name][len(stages) - 1], strict=True
                )
            ]
        )
        for name, stages in course.sums.items()
    }


def _control(ours: float, theirs: float, before: float, seen: int, examples: int) -> float:
    """Estimate a mean over all examples with the incumbent as control variate.

    Args:
        ours: Sum of the candidate over the examples seen.
        theirs: Sum of the incumbent over all examples.
        before: Sum of the incumbent over the examples seen.
        seen: Number of examples seen.
        examples: Number of all examples.
    """
    if not math.isfinite(ours):
        return math.inf
    if not math.isfinite(theirs):
        return ours / seen
    return max(0.0, theirs / examples + (ours - before) / seen)


def random_order(examples: int) -> Tensor:
    """A fixed random order `(examples,)` for reading a holdout, since image folders are sorted by class."""
    return torch.randperm(examples, generator=torch.Generator().manual_seed(0))
