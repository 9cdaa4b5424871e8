"""An evaluator that logs every result and replays results from an existing journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gnnrl_lightning.evaluation.evaluator import Evaluator
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.processes import from_first, of_all, rank, world_size

Ratios = Callable[[Mapping[str, int | float]], dict[str, float]]
"""Costs of a candidate by metric -> cost ratios for the journal, see `BoundBudget.ratios`."""


class Journalled:
    """Evaluates candidates and appends every evaluation, including cached ones, to the journal.

    A resumed journal is replayed as long as the same candidates are requested in the same order. The evaluator's cache
    starts with its evaluations, so no candidate in the journal is evaluated again.

    Each process has its own evaluator; `settle` exchanges the evaluations, and the first process writes them.

    Args:
        evaluator: Scores candidates.
        journal: The journal; only that of the first process is used.
        ratios: Costs of a candidate -> shares of the dense costs.
    """

    def __init__(self, evaluator: Evaluator, journal: Journal, ratios: Ratios) -> None:
        self.evaluator, self.journal, self.ratios = evaluator, journal, ratios
        evaluator.learn(from_first([Evaluation.from_record(record) for record in journal.before]))

    def __call__(self, widths: Tensor, proposer: str) -> Evaluation:
        """Score the candidate `widths (G,)`."""
        if world_size() > 1:
            return self.evaluator(widths, proposer)
        record = self.journal.take(widths=widths.tolist(), proposer=proposer)
        evaluation = self.evaluator(widths, proposer)  # also for replayed candidates: races depend on all requests
        if record is not None:
            return Evaluation.from_record(record)
        self._write(evaluation)
        return evaluation

    def _write(self, evaluation: Evaluation) -> None:
        self.journal.append({**evaluation.as_record(), **self.ratios(evaluation.costs)})

    def settle(self, answers: Sequence[Evaluation]) -> list[Evaluation]:
        """Exchange the evaluations since the last call between all processes; a collective call.

        Args:
            answers: Evaluations of this process.

        Returns:
            Evaluations of all processes, in rank order, the same on all processes; replayed from a resumed journal
            where it has them.
        """
        if world_size() == 1:
            return list(answers)
        told = [answer for part in of_all(list(answers)) for answer in part]
        settled = from_first([self._written(answer) for answer in told] if rank() == 0 else [])
        self.evaluator.learn(settled)
        for evaluation in settled:  # races depend on the requests of all processes
            self.evaluator(torch.tensor(evaluation.widths), evaluation.proposer)
        return settled

    def _written(self, answer: Evaluation) -> Evaluation:
        """Return the journal's record of an evaluation, or append the evaluation to the journal."""
        record = self.journal.take(widths=list(answer.widths), proposer=answer.proposer)
        if record is not None:
            return Evaluation.from_record(record)
        self._write(answer)
        return answer

    def holds(self, count: int) -> bool:
        """Whether the resumed journal holds at least `count` more evaluations; a collective call."""
        return from_first(len(self.journal.before) >= count)

    def skip(self, count: int) -> list[Evaluation]:
        """Replay the next evaluations of the resumed journal without requesting them.

        Raises:
            RuntimeError: The journal holds fewer evaluations.
        """
        records = from_first([self.journal.take() for _ in range(count)])
        if None in records:
            raise RuntimeError(f"the journal holds fewer than the {count} evaluations that are to be skipped")
        skipped = [Evaluation.from_record(record) for record in records if record is not None]
        for evaluation in skipped:
            self.evaluator(torch.tensor(evaluation.widths), evaluation.proposer)
        return skipped
