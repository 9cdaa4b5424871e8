"""The interface that every search method works against, with its evaluation budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.objective import Classification, Objective
from gnnrl_lightning.processes import share
from gnnrl_lightning.search.baselines import allocation_candidates
from gnnrl_lightning.surrogate.sensitivity import Sensitivity
from gnnrl_lightning.trees import Tree, count, take


class NotApplicable(UserError):
    """A method does not support this network or lacks an input; the message gives the reason, without a subject."""


@contextmanager
def reasons_of(subject: str) -> Iterator[None]:
    """Give the reason of a `NotApplicable` that is raised within this block its subject."""
    try:
        yield
    except NotApplicable as error:
        raise NotApplicable(f"{subject} {error}") from error


class SearchProblem:
    """A network, a budget, and a number of evaluations.

    It counts everything that costs evaluations: all scored candidates, including starting candidates and repeated
    ones, and the examples that the pruner, the sensitivity or a method reads once for all candidates, as
    `ceil(examples / evaluation_examples)` evaluations.

    Args:
        graph: The traced network.
        limits: The budget bound to the graph.
        evaluate: Scores a candidate, `(widths (G,), proposer)`.
        evaluations: Maximum number of evaluations.
        starting: Name -> widths `(G,)` of the candidates that a search scores first.
        sensitivity: Measures the sensitivity; None: no sensitivity is available.
        evaluation_examples: Forward passes of one example per evaluation.
        pruner: Provides the network and the calibration examples to methods that read them, and the passes over these
            examples that are made once for all candidates.
        settle: Maps the evaluations of this process since the last call to those of all processes, see `exchange`;
            None: there is a single process.

    Attributes:
        left: Evaluations left.
        spent: Evaluations spent so far.
        history: Evaluations, in the order of the requests.
        charged_examples: Examples charged in addition to the evaluations.
        examples: All examples read so far, including those of the evaluations.
    """

    def __init__(
        self,
        graph: ComputationGraph,
        limits: BoundBudget,
        evaluate: Callable[[Tensor, str], Evaluation],
        evaluations: int,
        starting: Mapping[str, Tensor],
        sensitivity: Callable[[], Sensitivity] | None = None,
        evaluation_examples: int = 1,
        pruner: Pruner | None = None,
        settle: Callable[[Sequence[Evaluation]], list[Evaluation]] | None = None,
    ) -> None:
        self.graph, self.limits, self.evaluations = graph, limits, evaluations
        self._allowed = limits.limits
        self.starting, self.evaluation_examples = dict(starting), evaluation_examples
        self.charged_examples = 0
        self.history: list[Evaluation] = []
        self._evaluate, self._measure, self._pruner, self._settle = evaluate, sensitivity, pruner, settle
        self._settled = 0
        self._sensitivity: Sensitivity | None = None
        self._seen: set[tuple[int, ...]] = set()
        self._passes: set[str] = set()

    @property
    def spent(self) -> int:
        """Evaluations spent so far."""
        return len(self.history) + math.ceil(self.charged_examples / self.evaluation_examples)

    @property
    def examples(self) -> int:
        """Forward passes of one example so far."""
        return self.charged_examples + sum(scored.examples for scored in self.history)

    @property
    def left(self) -> int:
        """Evaluations left."""
        return self.evaluations - self.spent

    @property
    def sensitivity(self) -> Sensitivity:
        """The sensitivity; its examples are charged at the first access.

        Raises:
            NotApplicable: No sensitivity is available, or too few evaluations are left.
        """
        if self._sensitivity is None:
            if self._measure is None:
                raise NotApplicable("needs a sensitivity, but none is measured; set search.sensitivity")
            sensitivity = self._measure()
            for name in sensitivity.passes:
                self.calibrate(name)
            self.charge(sensitivity.examples)
            self._sensitivity = sensitivity
        return self._sensitivity

    @property
    def reads_sensitivity(self) -> bool:
        """Whether the sensitivity has been read."""
        return self._sensitivity is not None

    @property
    def network(self) -> nn.Module:
        """The dense network, for methods that read its weights; do not modify it.

        Raises:
            NotApplicable: The problem has no pruner.
        """
        return self._with_weights().network

    @property
    def objective(self) -> Objective:
        """The objective of the pruner; classification without a pruner."""
        return Classification() if self._pruner is None else self._pruner.objective

    @property
    def example(self) -> Tree:
        """One normalised example, for its shape; free of charge.

        Raises:
            NotApplicable: The problem has no pruner.
        """
        return take(self._with_weights().calibration, slice(1))

    def calibration(self, name: str) -> Tree:
        """The normalised calibration inputs; charges one pass over them.

        Args:
            name: Name of the result of the pass, from `gnnrl_lightning.importance.Importance.passes` or a name of
                your own; each name is charged once.

        Raises:
            NotApplicable: The problem has no pruner, or too few evaluations are left.
        """
        self.calibrate(name)
        return self._with_weights().calibration

    def _with_weights(self) -> Pruner:
        if self._pruner is None:
            raise NotApplicable("needs the network's weights, but the problem has no pruner")
        return self._pruner

    def charge(self, examples: int) -> None:
        """Charge forward passes of examples outside evaluations.

        Raises:
            NotApplicable: Too few evaluations are left.
        """
        spent = len(self.history) + math.ceil((self.charged_examples + examples) / self.evaluation_examples)
        if spent > self.evaluations:
            raise NotApplicable(
                f"needs passes of {examples} examples ({self.evaluation_examples} cost one evaluation), but only "
                f"{self.left} of {self.evaluations} evaluations are left; raise search.evaluations"
            )
        self.charged_examples += examples

    def calibrate(self, name: str) -> None:
        """Charge a pass over the calibration examples, unless it has been charged already.

        Args:
            name: Name of the result of the pass, see `Pruner.passes`.

        Raises:
            NotApplicable: Too few evaluations are left.
        """
        if name not in self._passes:
            self.charge(count(self._with_weights().calibration))
            self._passes.add(name)

    def _pay_for_pruner(self) -> None:
        """Charge the passes that the pruner makes before its first candidate."""
        for name in () if self._pruner is None else self._pruner.passes:
            self.calibrate(name)

    def allow(self, macs: float) -> None:
        """Allow candidates up to this share of the dense MACs, for a policy that is trained for several budgets.

        A budget without a limit on the MACs allows any.
        """
        if "macs" in self.limits.limits:
            self._allowed = self.limits_at(max(macs, self.limits.share("macs")))

    def project(self, widths: Tensor, macs: float | None = None) -> Tensor:
        """Project proposals `(G,)` or `(B, G)` onto the budget: int64 widths that cannot be widened.

        Args:
            widths: The proposals.
            macs: Limit in place of the budget's, a share of the dense MACs, for a search over a range of them.
        """
        return self.limits.project(widths, None if macs is None else self.limits_at(macs))

    def limits_at(self, macs: float) -> dict[str, float]:
        """Absolute limits of the budget with another one on the MACs, a share of the dense network's."""
        return {**self.limits.limits, "macs": macs * self.limits.dense["macs"]}

    def start(self, from_sensitivity: bool = False, advance: Callable[[], None] = lambda: None) -> None:
        """Score the starting candidates.

        Several processes share the work and exchange the results.

        Args:
            from_sensitivity: Whether to include the candidates derived from the sensitivity.
            advance: Called after each candidate that this process scores.

        Raises:
            NotApplicable: No sensitivity is available, or too few evaluations are left.
        """
        self._pay_for_pruner()
        starting = self.starting
        if from_sensitivity:
            starting = starting | allocation_candidates(self.graph, self.limits, self.sensitivity)
        if len(starting) > self.left:
            raise NotApplicable(
                f"has {self.left} evaluations left, the starting candidates need {len(starting)}; raise "
                "search.evaluations"
            )
        for name in share(list(starting)):
            self.ask(starting[name], name)
            advance()
        self.exchange()

    def ask(self, widths: Tensor, proposer: str) -> Evaluation:
        """Score a candidate `(G,)`; costs one evaluation.

        Raises:
            NotApplicable: Too few evaluations are left for the pruner's calibration (at the first candidate).
            UserError: There are no widths of a candidate, it does not meet the budget, or no evaluations are left.
        """
        self._pay_for_pruner()
        if self.left < 1:
            raise UserError(
                f"{proposer} asks for more than its {self.evaluations} evaluations: expected no more than problem.left"
            )
        expected = tuple(self.graph.widths.shape)
        if not isinstance(widths, Tensor) or widths.dtype != torch.int64 or tuple(widths.shape) != expected:
            what = f"{widths.dtype} {tuple(widths.shape)}" if isinstance(widths, Tensor) else type(widths).__name__
            raise UserError(
                f"{proposer} proposes {what}: expected widths of a candidate, an int64 tensor of shape {expected}, "
                "such as problem.project gives"
            )
        if not self.limits.met(widths, self._allowed):
            raise UserError(
                f"{proposer} proposes {widths.tolist()}, which does not meet the budget: expected widths that "
                "problem.project gives"
            )
        scored = self._evaluate(widths, proposer)
        self._count([scored])
        return scored

    def remember(self, scored: Sequence[Evaluation]) -> None:
        """Count the evaluations that all processes made before a run was interrupted."""
        self._count(scored)
        self._settled = len(self.history)

    def exchange(self) -> None:
        """Count the evaluations of the other processes since the last exchange; a collective call.

        Between exchanges each process counts only its own candidates; afterwards all have the same history.
        """
        if self._settle is not None:
            own = self.history[self._settled :]
            del self.history[self._settled :]
            self.remember(self._settle(own))

    def _count(self, scored: Sequence[Evaluation]) -> None:
        self.history += scored
        self._seen |= {item.widths for item in scored}

    def ranked(self) -> list[Evaluation]:
        """The distinct evaluations so far, best first."""
        distinct = {scored.widths: scored for scored in reversed(self.history)}
        return sorted(reversed(distinct.values()), key=lambda scored: scored.merit, reverse=True)

    def unseen(self, widths: Tensor) -> Tensor:
        """The distinct candidates among `(B, G)` that have not been scored yet, sorted."""
        distinct = widths.unique(dim=0)
        return distinct[[tuple(row) not in self._seen for row in distinct.tolist()]]

    def new(self, widths: Tensor, count: int) -> Tensor:
        """The first `count` distinct candidates among `(B, G)` that have not been scored yet.

        If there are fewer, candidates that have been scored fill up, so that converged methods use all evaluations.
        """
        fresh: dict[tuple[int, ...], int] = {}
        for number, row in enumerate(map(tuple, widths.tolist())):
            if row not in self._seen:
                fresh.setdefault(row, number)
        first = fresh.values()
        rest = sorted({*range(len(widths))} - {*first})
        return widths[torch.tensor([*first, *rest][:count], dtype=torch.int64)]
