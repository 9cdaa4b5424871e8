"""Racing: candidates are scored on growing parts of the search split, and those that fall behind are dropped.

A candidate is compared with the incumbent, the best one so far that was scored on the whole split. After each stage
but the last, an exact one-sided sign test (McNemar's) looks at the images that one of the two has right and the other
wrong: of n such images the candidate wins k. One that is as good as the incumbent wins each with probability 1/2, so

    P(at most k wins) = sum_{i <= k} C(n, i) / 2^n,

and where that is below error / (stages - 1) the candidate is dropped. By Bonferroni's inequality a candidate that is
as good as the incumbent is dropped with a probability of at most `error`.

The scores of a dropped candidate are estimates, with the incumbent as control variate: its scores on the whole split
plus the mean difference between the two on the images seen,

    s = s_incumbent(all) + mean_seen(candidate - incumbent).

Most images are right or wrong for both and cancel. With an error of at most 1/2 a dropped candidate has lost more
often than it has won, so that its estimated top-1 lies below the incumbent's: it never comes first.

Sources: McNemar (Psychometrika 1947); Maron and Moore (NIPS 1993) for races.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

STAGES = (0.1, 0.2, 0.4, 1.0)
"""Share of the search split that has been seen after each stage."""


def stage_ends(sizes: Sequence[int], shares: Sequence[float] = STAGES) -> tuple[int, ...]:
    """Number of batches after each stage, ascending: a stage is one or more whole batches.

    Args:
        sizes: Images of each batch.
        shares: Share of all images after each stage, ascending, the last one 1.

    Returns:
        For each stage the fewest batches that hold its share; stages that add none are left out, and those that would
        hold more than twice their share: of a small split there is little to save.
    """
    held = np.cumsum(sizes)
    wanted = np.array(shares) * held[-1]
    ends = np.searchsorted(held, wanted - 1e-9) + 1
    return tuple(sorted({int(end) for end, share in zip(ends, wanted, strict=True) if held[end - 1] <= 2 * share}))


def sign_test(wins: int, losses: int) -> float:
    """Probability of at most so many wins, were a win and a loss equally likely; exact."""
    differing = wins + losses
    return sum(math.comb(differing, k) for k in range(wins + 1)) / 2**differing


@dataclass(frozen=True)
class Course:
    """How a candidate did, stage by stage: what a later race against it needs.

    Attributes:
        images: Images seen.
        correct: Whether it has each of them right, in their order: packed bits, base64.
        cross_entropy: Sum over all images seen after each stage, nats; infinite once it is not a number.
        divergence: Likewise.
    """

    images: int = 0
    correct: str = ""
    cross_entropy: tuple[float, ...] = ()
    divergence: tuple[float, ...] = ()

    def followed_by(self, correct: Tensor, cross_entropy: float, divergence: float) -> Course:
        """The course after one more stage.

        Args:
            correct: Whether it has each image of the stage right, bool `(n,)`.
            cross_entropy: Sum over these images.
            divergence: Likewise.
        """
        right = np.concatenate([self.right(), correct.cpu().numpy()])
        return Course(
            len(right),
            base64.b64encode(np.packbits(right).tobytes()).decode(),
            _added(self.cross_entropy, cross_entropy),
            _added(self.divergence, divergence),
        )

    def right(self) -> np.ndarray:
        """Whether it has each image right, bool `(images,)`."""
        packed = np.frombuffer(base64.b64decode(self.correct), dtype=np.uint8)
        return np.unpackbits(packed, count=self.images).astype(bool)

    @property
    def scores(self) -> tuple[float, float, float]:
        """Top-1 in percent, mean cross-entropy and divergence in nats on the images seen."""
        top1 = 100 * int(self.right().sum()) / self.images
        return top1, self.cross_entropy[-1] / self.images, self.divergence[-1] / self.images

    def as_record(self) -> dict[str, Any]:
        """The course in plain JSON types; null stands for infinity."""
        sums = {name: [None if value == math.inf else value for value in getattr(self, name)] for name in SUMS}
        return asdict(self) | sums

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Course:
        """The inverse of `as_record`, exactly."""
        sums = {name: tuple(math.inf if value is None else value for value in record[name]) for name in SUMS}
        return cls(record["images"], record["correct"], **sums)


SUMS = ("cross_entropy", "divergence")
"""What a `Course` has a sum of after each stage."""


def _added(sums: tuple[float, ...], more: float) -> tuple[float, ...]:
    total = sums[-1] + more if sums else more
    # A network whose outputs are not numbers ranks behind every other.
    return (*sums, total if math.isfinite(total) else math.inf)


def hopeless(course: Course, incumbent: Course, stages: int, error: float) -> bool:
    """Whether a candidate is dropped after the stages that it has behind it.

    Args:
        course: Of the candidate; it has not seen all images.
        incumbent: Of the best candidate that has.
        stages: Number of stages, the last one included.
        error: Probability, over all stages, with which one as good as the incumbent may be dropped, at most 1/2.
    """
    ours, theirs = course.right(), incumbent.right()[: course.images]
    wins, losses = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    return sign_test(wins, losses) < error / (stages - 1)


def estimate(course: Course, incumbent: Course) -> tuple[float, float, float]:
    """Top-1 in percent, mean cross-entropy and divergence in nats on the whole split, from the images seen.

    None is below zero; where a sum of the incumbent is infinite, the candidate's own mean stands.

    Args:
        course: Of the candidate that is dropped.
        incumbent: Of the best candidate that has seen all images, in the same stages.
    """
    seen = course.images
    difference = int(course.right().sum()) - int(incumbent.right()[:seen].sum())
    top1 = max(0.0, incumbent.scores[0] + 100 * difference / seen)
    cross_entropy, divergence = (
        _control(getattr(course, name), getattr(incumbent, name), seen, incumbent.images) for name in SUMS
    )
    return top1, cross_entropy, divergence


def _control(ours: tuple[float, ...], theirs: tuple[float, ...], seen: int, images: int) -> float:
    """Estimated mean over all images, from sums after each stage."""
    if not math.isfinite(ours[-1]):
        return math.inf
    if not math.isfinite(theirs[-1]):
        return ours[-1] / seen
    return max(0.0, theirs[-1] / images + (ours[-1] - theirs[len(ours) - 1]) / seen)


def random_order(images: int, seed: int = 0) -> Tensor:
    """The fixed order `(images,)` in which a search split is read: folders are sorted by class."""
    return torch.randperm(images, generator=torch.Generator().manual_seed(seed))
