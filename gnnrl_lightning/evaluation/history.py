"""An evaluator whose answers are written down, and which a journal may spare its work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gnnrl_lightning.evaluation.evaluator import Evaluator
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.processes import from_first, of_all, rank, world_size

Ratios = Callable[[Mapping[str, int | float]], dict[str, float]]
"""Costs of a candidate by metric -> figures for the readers of the journal, see `BoundBudget.ratios`."""


class Journalled:
    """Asks the evaluator and writes every answer down, those for known candidates too: the journal is the history.

    Where the journal has been resumed, it answers as long as the same candidates are asked for in the same order; its
    evaluations are known to the evaluator from the beginning, so that nothing that it holds is evaluated again.

    Of several processes each asks its own evaluator; what they were told is written down by the first one, and made
    known to all, when they settle.

    Args:
        evaluator: Scores candidates.
        journal: Where the answers go; of several processes the first one's counts.
        ratios: Costs of a candidate -> their shares of the dense ones, for the readers of the journal.
    """

    def __init__(self, evaluator: Evaluator, journal: Journal, ratios: Ratios) -> None:
        self.evaluator, self.journal, self.ratios = evaluator, journal, ratios
        evaluator.learn(from_first([Evaluation.from_record(record) for record in journal.before]))

    def __call__(self, widths: Tensor, proposer: str) -> Evaluation:
        """Score the candidate `widths (G,)`."""
        if world_size() > 1:
            return self.evaluator(widths, proposer)
        record = self.journal.take(widths=widths.tolist(), proposer=proposer)
        evaluation = self.evaluator(widths, proposer)  # also where the journal answers: races depend on what was asked
        if record is not None:
            return Evaluation.from_record(record)
        self._write(evaluation)
        return evaluation

    def _write(self, evaluation: Evaluation) -> None:
        self.journal.append({**evaluation.as_record(), **self.ratios(evaluation.costs)})

    def settle(self, answers: Sequence[Evaluation]) -> list[Evaluation]:
        """Let all processes know what each was told since they did so last; all call it.

        Args:
            answers: What this process was told.

        Returns:
            What all were told, in the order of the processes: the same everywhere. A journal that has been resumed
            answers first.
        """
        if world_size() == 1:
            return list(answers)
        told = [answer for part in of_all(list(answers)) for answer in part]
        settled = from_first([self._written(answer) for answer in told] if rank() == 0 else [])
        self.evaluator.learn(settled)
        for evaluation in settled:  # races depend on what everybody asked
            self.evaluator(torch.tensor(evaluation.widths), evaluation.proposer)
        return settled

    def _written(self, answer: Evaluation) -> Evaluation:
        """What the journal has of an answer, to which it is added where the journal does not know it."""
        record = self.journal.take(widths=list(answer.widths), proposer=answer.proposer)
        if record is not None:
            return Evaluation.from_record(record)
        self._write(answer)
        return answer

    def holds(self, count: int) -> bool:
        """Whether the resumed journal holds so many evaluations more; all processes call it."""
        return from_first(len(self.journal.before) >= count)

    def skip(self, count: int) -> list[Evaluation]:
        """The next evaluations that the resumed journal holds, which are not asked for again.

        Raises:
            RuntimeError: It holds fewer.
        """
        records = from_first([self.journal.take() for _ in range(count)])
        if None in records:
            raise RuntimeError(f"the journal holds fewer than the {count} evaluations that are to be skipped")
        skipped = [Evaluation.from_record(record) for record in records if record is not None]
        for evaluation in skipped:
            self.evaluator(torch.tensor(evaluation.widths), evaluation.proposer)
        return skipped
