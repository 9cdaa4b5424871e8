"""An evaluator whose answers are written down, and which a journal may spare its work."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gnnrl_lightning.evaluation.evaluation import Evaluation
from gnnrl_lightning.evaluation.evaluator import Evaluator
from gnnrl_lightning.evaluation.journal import Journal


class Journalled:
    """Asks the evaluator and writes every answer down, those for known candidates too: the journal is the history.

    Where the journal has been resumed, it answers as long as the same candidates are asked for in the same order; its
    evaluations are known to the evaluator from the beginning, so that nothing that it holds is evaluated again.

    Args:
        evaluator: Scores candidates.
        journal: Where the answers go.
        ratio: MACs of a candidate -> their share of the dense ones, for the readers of the journal.
    """

    def __init__(self, evaluator: Evaluator, journal: Journal, ratio: Callable[[int], float]) -> None:
        self.evaluator, self.journal, self.ratio = evaluator, journal, ratio
        evaluator.learn(map(Evaluation.from_record, journal.before))

    def __call__(self, widths: Tensor, proposer: str) -> Evaluation:
        """Score the candidate `widths (G,)`."""
        record = self.journal.take(widths=widths.tolist(), proposer=proposer)
        evaluation = self.evaluator(widths, proposer)  # also where the journal answers: races depend on what was asked
        if record is not None:
            return Evaluation.from_record(record)
        self.journal.append(evaluation.as_record() | {"macs_ratio": self.ratio(evaluation.macs)})
        return evaluation

    def skip(self, count: int) -> list[Evaluation]:
        """The next evaluations that the resumed journal holds, which are not asked for again.

        Raises:
            RuntimeError: It holds fewer.
        """
        records = [self.journal.take() for _ in range(count)]
        if None in records:
            raise RuntimeError(f"the journal holds fewer than the {count} evaluations that are to be skipped")
        skipped = [Evaluation.from_record(record) for record in records if record is not None]
        for evaluation in skipped:
            self.evaluator(torch.tensor(evaluation.widths), evaluation.proposer)
        return skipped
