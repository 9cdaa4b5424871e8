"""The interface that every search method works against, with its evaluation budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

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
    """A method cannot do this network, or lacks what it needs; the message says why."""


class SearchProblem:
    """A network, a budget, and a number of evaluations to spend.

    All that costs evaluations is counted here: candidates that are asked for, the starting ones and those that were
    known already included; and the examples that are read once for all of them, by the pruner, the sensitivity or a
    method: together `ceil(examples / evaluation_examples)`.

    Args:
        graph: The traced network.
        limits: What a candidate may cost.
        evaluate: Scores a candidate: `(widths (G,), proposer)`.
        evaluations: Evaluations that may be spent.
        starting: Name -> widths `(G,)` of the candidates that a search scores first.
        sensitivity: Measures what narrowing one group costs; None: there is none to read.
        evaluation_examples: Forward passes of one example that an evaluation takes.
        pruner: Gives the network and the calibration examples to methods that read them, and says which passes over
            these examples are made once for all candidates.
        settle: From what this process was told since it was called last to what all processes were told, see
            `exchange`; None: there is one process.

    Attributes:
        left: Evaluations that may still be spent.
        spent: Evaluations spent so far.
        history: The candidates in the order in which they were asked for.
        charged_examples: Examples that were paid for beside the evaluations.
        examples: All examples that were read, those of the evaluations included.
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
        """Evaluations that may still be spent."""
        return self.evaluations - self.spent

    @property
    def sensitivity(self) -> Sensitivity:
        """What narrowing one group costs; the first reader pays for its examples.

        Raises:
            NotApplicable: There is none, or too few evaluations are left to pay for it.
        """
        if self._sensitivity is None:
            if self._measure is None:
                raise NotApplicable("reads a sensitivity, and there is none")
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
        """The dense network, for methods that read its weights; it is not to be changed.

        Raises:
            NotApplicable: There is none.
        """
        return self._with_weights().network

    @property
    def objective(self) -> Objective:
        """What the network is for; classification where there is none."""
        return Classification() if self._pruner is None else self._pruner.objective

    @property
    def example(self) -> Tree:
        """One normalised example, for its shape; it costs nothing.

        Raises:
            NotApplicable: There is none.
        """
        return take(self._with_weights().calibration, slice(1))

    def calibration(self, name: str) -> Tree:
        """The calibration inputs, normalised, for a pass over them.

        Args:
            name: What is found out in the pass, which is paid for once for each name, whoever needs it:
                `gnnrl_lightning.importance.Importance.passes`, or a name of the method's own.

        Raises:
            NotApplicable: There are none, or not enough evaluations are left.
        """
        self.calibrate(name)
        return self._with_weights().calibration

    def _with_weights(self) -> Pruner:
        if self._pruner is None:
            raise NotApplicable("reads the network's weights, and has no pruner to take them from")
        return self._pruner

    def charge(self, examples: int) -> None:
        """Pay for forward passes of examples that are no evaluation.

        Raises:
            NotApplicable: Not enough evaluations are left.
        """
        spent = len(self.history) + math.ceil((self.charged_examples + examples) / self.evaluation_examples)
        if spent > self.evaluations:
            raise NotApplicable(
                f"reads {examples} examples, {self.evaluation_examples} of which are worth an evaluation; {self.left} "
                f"of {self.evaluations} evaluations are left"
            )
        self.charged_examples += examples

    def calibrate(self, name: str) -> None:
        """Pay for a pass over the calibration examples that is made once, whoever needs it.

        Args:
            name: What is found out in it, see `Pruner.passes`.

        Raises:
            NotApplicable: Not enough evaluations are left.
        """
        if name not in self._passes:
            self.charge(count(self._with_weights().calibration))
            self._passes.add(name)

    def _pay_for_pruner(self) -> None:
        """Pay for what the pruner finds out before its first candidate."""
        for name in () if self._pruner is None else self._pruner.passes:
            self.calibrate(name)

    def allow(self, macs: float) -> None:
        """Let candidates have up to this share of the dense MACs: a policy for all budgets learns beyond this one."""
        share = macs * self.limits.dense["macs"]
        self._allowed = {**self.limits.limits, "macs": max(share, self.limits.limits.get("macs", 0.0))}

    def project(self, widths: Tensor) -> Tensor:
        """Proposals `(G,)` or `(B, G)`, integer or not, within the budget and maximal: int64."""
        return self.limits.project(widths)

    def start(self, from_sensitivity: bool = False, advance: Callable[[], None] = lambda: None) -> None:
        """Score the starting candidates, those given and, if asked for, those from the sensitivity.

        Several processes share the work, and know all answers in the end.

        Args:
            from_sensitivity: Whether to score those from the sensitivity, too.
            advance: Called after each candidate that this process scores.

        Raises:
            NotApplicable: There is no sensitivity, or too few evaluations are left.
        """
        self._pay_for_pruner()
        starting = self.starting
        if from_sensitivity:
            starting = starting | allocation_candidates(self.graph, self.limits, self.sensitivity)
        if len(starting) > self.left:
            raise NotApplicable(f"has {self.left} evaluations left for {len(starting)} starting candidates")
        for name in share(list(starting)):
            self.ask(starting[name], name)
            advance()
        self.exchange()

    def ask(self, widths: Tensor, proposer: str) -> Evaluation:
        """Score a candidate `(G,)`, at the price of one evaluation.

        Raises:
            NotApplicable: It is the first one, and the evaluations do not pay for the pruner's calibration.
            ValueError: It does not meet the budget.
            RuntimeError: No evaluation is left.
        """
        self._pay_for_pruner()
        if self.left < 1:
            raise RuntimeError(f"{proposer} asks for more than its {self.evaluations} evaluations")
        if not self.limits.met(widths, self._allowed):
            raise ValueError(f"{proposer} proposes {widths.tolist()}, which does not meet the budget: project it first")
        scored = self._evaluate(widths, proposer)
        self._count([scored])
        return scored

    def remember(self, scored: Sequence[Evaluation]) -> None:
        """Count candidates that were asked for before a run was interrupted, by all processes."""
        self._count(scored)
        self._settled = len(self.history)

    def exchange(self) -> None:
        """Count what the other processes asked for since they did so last; all call it, at the same points.

        Until then each process counts its own candidates alone; afterwards all have the same history.
        """
        if self._settle is not None:
            own = self.history[self._settled :]
            del self.history[self._settled :]
            self.remember(self._settle(own))

    def _count(self, scored: Sequence[Evaluation]) -> None:
        self.history += scored
        self._seen |= {item.widths for item in scored}

    def ranked(self) -> list[Evaluation]:
        """The candidates asked for so far without repetitions, the best first."""
        distinct = {scored.widths: scored for scored in reversed(self.history)}
        return sorted(reversed(distinct.values()), key=lambda scored: scored.merit, reverse=True)

    def new(self, widths: Tensor, count: int) -> Tensor:
        """The first `count` of the candidates `(B, G)` that were not asked for yet, each once.

        Where there are fewer, old ones follow: a method that has converged spends its evaluations all the same.
        """
        fresh: dict[tuple[int, ...], int] = {}
        for number, row in enumerate(map(tuple, widths.tolist())):
            if row not in self._seen:
                fresh.setdefault(row, number)
        first = list(fresh.values())
        rest = [number for number in range(len(widths)) if number not in set(first)]
        return widths[torch.tensor((first + rest)[:count], dtype=torch.int64)]
