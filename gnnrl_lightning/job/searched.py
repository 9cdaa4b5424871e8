"""A finished search, and the finalists that were trained after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.evaluation.result import Evaluation, best_of, within
from gnnrl_lightning.job.trained import Trained
from gnnrl_lightning.objective import Objective
from gnnrl_lightning.runs.folder import UNIFORM
from gnnrl_lightning.search.problem import NotApplicable, SearchProblem
from gnnrl_lightning.surrogate.sensitivity import Sensitivity


@dataclass(frozen=True)
class Finalists:
    """The finalists of a search.

    Attributes:
        trained: The finalists in the order of their training, as they were scored after it.
        seconds: Duration, seconds, without interruptions.
    """

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


@dataclass(frozen=True)
class Searched:
    """A finished search.

    Args:
        trained: The job with its trained dense network.
        limits: The budget as the search had it; the model of the latency may be corrected afterwards.
        history: The candidates in the order of their evaluation.
        best: The candidate to deliver: the best one within the budget, or the winner of the finals.
        evaluations: Evaluations spent.
        examples: Forward passes of single examples spent.
        seconds: Duration, seconds.
        sensitivity: Effect of narrowing each group, if the search read it.
        episodes: Episodes of an iteration of the agent, over all processes; None: the method has no iterations.
        finals: The finalists, of which the best one is `best`; None: nothing was trained after the search.
        latency_checks: The candidates whose latency was measured after the search, see
            `gnnrl_lightning.job.latency_check`.
        alike: The candidates of which the fastest is `best`, see `gnnrl_lightning.job.fastest`.
        front: Share of the dense MACs -> its best candidate, of a search over a range of budgets; else empty.
    """

    trained: Trained
    limits: BoundBudget
    history: tuple[Evaluation, ...]
    best: Evaluation
    evaluations: int
    examples: int
    seconds: float
    sensitivity: Sensitivity | None
    episodes: int | None = None
    finals: Finalists | None = None
    latency_checks: tuple[Mapping[str, Any], ...] = ()
    alike: tuple[Mapping[str, Any], ...] = ()
    front: Mapping[float, Evaluation] = field(default_factory=dict)

    @classmethod
    def of(cls, problem: SearchProblem, trained: Trained, seconds: float) -> Searched:
        """Return what a search has come to that has spent its evaluations, in so many seconds.

        Raises:
            NotApplicable: No candidate within the budget was evaluated.
        """
        sensitivity = problem.sensitivity if problem.reads_sensitivity else None
        spent = problem.spent, problem.examples
        history = tuple(problem.history)
        return cls(trained, problem.limits, history, best_within(problem), *spent, seconds, sensitivity)

    def best_by(self, proposer: str) -> Evaluation | None:
        """Return the best evaluation within the budget of one proposer."""
        return best_of((item for item in self.history if within(self.limits, item)), proposer)

    @property
    def uniform(self) -> Evaluation | None:
        """The candidate with one keep ratio for all groups; None: the method has not evaluated it."""
        return best_of(self.history, UNIFORM)

    def ranked(self) -> list[Evaluation]:
        """The winner and then the others, the best first: distinct candidates within the budget, scored completely."""
        known = (item for item in self.history if not item.dropped and within(self.limits, item))
        distinct = {item.widths: item for item in sorted(known, key=lambda item: item.merit, reverse=True)}
        return [*({self.best.widths: self.best} | distinct).values()]


def best_within(problem: SearchProblem) -> Evaluation:
    """Return the best evaluated candidate within the budget of a problem.

    Raises:
        NotApplicable: No candidate within the budget was evaluated.
    """
    best = best_of(item for item in problem.history if within(problem.limits, item))
    if best is None:
        raise NotApplicable(
            "the search has asked for no candidate within the budget: expected at least one; give more evaluations"
        )
    return best
