"""Options of candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gnnrl_lightning.candidates.pruner import pruner_passes
from gnnrl_lightning.importance import IMPORTANCES
from gnnrl_lightning.options import at_least, check_fields
from gnnrl_lightning.repair.table import REPAIRS


@dataclass(frozen=True)
class CandidateOptions:
    """How a candidate is made from the dense network: selection of channels, and repair of the sliced network.

    Args:
        importance: Criterion that selects the channels: l1, l2, batch_norm, taylor, geometric_median, fisher, surgeon,
            random, or the import path of your own, see `gnnrl_lightning.importance.table`.
        repair: Repair of a sliced network before it is scored: none, predicted_batch_norm, batch_norm, reconstruction,
            refit, or the import path of your own, see `gnnrl_lightning.repair.table`. `batch_norm` takes two thirds of
            the time, but deep cuts all look alike after it: candidates of ResNet-20 at 30 % of the MACs have 14 to 35 %
            top-1, and 70 to 80 % after `refit`.
        calibration_examples: Number of training examples for importance, repair and sensitivity, at most all of them;
            auto: 64 to 256, more for wider layers, see
            `gnnrl_lightning.candidates.pruner.default_calibration_examples`.

    Raises:
        UserError: The importance or repair is unknown, or there are no examples.
    """

    importance: str = "l2"
    repair: str = "refit"
    calibration_examples: int | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        check_fields(self, "candidate")
        at_least("candidate", 1, auto=True, calibration_examples=self.calibration_examples)
        IMPORTANCES.find(self.importance, "candidate.importance")
        REPAIRS.find(self.repair, "candidate.repair")

    @property
    def passes(self) -> frozenset[str]:
        """Names of the passes over the calibration examples that are made once for all candidates."""
        return pruner_passes(self.importance, self.repair)

    @property
    def calibration_count(self) -> int:
        """Number of calibration examples, once it is known.

        Raises:
            ValueError: It is auto, which depends on the network.
        """
        if isinstance(self.calibration_examples, str):
            raise ValueError("candidate.calibration_examples is auto: call `without_auto`")
        return self.calibration_examples

    @property
    def examples(self) -> int:
        """Number of calibration examples that the repair of each candidate reads."""
        return self.calibration_count if REPAIRS.find(self.repair).reads_examples else 0
