"""Options of scoring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gnnrl_lightning.checks import one_of, real
from gnnrl_lightning.options import AUTO, at_least, check_fields
from gnnrl_lightning.speed.inference import PRECISIONS


@dataclass(frozen=True)
class ScoringOptions:
    """How a candidate is scored on the holdout.

    Args:
        precision: Precision of weights and activations: 32, bf16, or auto: the fastest precision, measured on the dense
            network, that agrees with 32, see `gnnrl_lightning.speed.tuning`.
        batch_size: Examples in a batch, or auto: measured together with the precision, else the data module's
            eval_batch_size.
        examples: Number of held-out examples on which each candidate is scored, the same random choice for all; null:
            the whole holdout. What is scored after the search (finalists, candidates as good as the best one, the
            delivered network) is scored on the whole holdout.
        racing: Whether to drop a candidate once a part of these examples shows that it is worse than the best candidate
            so far, see `gnnrl_lightning.evaluation.racing`. Off where a surrogate learns from the scores, and with
            `episode.macs_range`, because candidates of different budgets are not comparable.
        drop_probability: Probability with which a candidate as good as the best one may be dropped, at most 0.5.
        finetune_steps: Training steps before each candidate is scored; 0: no training.

    Raises:
        UserError: The precision is unknown, or a number is out of range.
    """

    precision: str = "32"
    batch_size: int | Literal["auto"] = "auto"
    examples: int | None = 500
    racing: bool = True
    drop_probability: float = 0.2
    finetune_steps: int = 0

    def __post_init__(self) -> None:
        check_fields(self, "scoring")
        one_of("scoring.precision", self.precision, (*PRECISIONS, AUTO))
        at_least("scoring", 1, auto=True, batch_size=self.batch_size)
        at_least("scoring", 1, examples=self.examples)
        at_least("scoring", 0, finetune_steps=self.finetune_steps)
        real("scoring.drop_probability", self.drop_probability, 0, 0.5, "(]")

    def count(self, holdout: int) -> int:
        """Return the number of examples on which a candidate is scored.

        Args:
            holdout: Number of held-out examples.
        """
        return holdout if self.examples is None else min(holdout, self.examples)
