"""Options of candidates."""

from __future__ import annotations

from dataclasses import dataclass

from gnnrl_lightning.candidates.pruner import pruner_passes
from gnnrl_lightning.importance import IMPORTANCES
from gnnrl_lightning.options import at_least, check_fields
from gnnrl_lightning.repair.table import REPAIRS


@dataclass(frozen=True)
class CandidateOptions:
    """How a candidate is made from the dense network: selection of channels, and repair of the sliced network.

    Args:
        importance: Criterion that selects the channels: a name of `gnnrl_lightning.importance.IMPORTANCES` or an import
            path.
        repair: Repair of a sliced network before it is scored: a name of `gnnrl_lightning.repair.table.REPAIRS`, an
            import path. After `batch_norm`, which takes two thirds of the time, deep cuts all look alike: candidates of
            ResNet-20 at 30 % of the MACs have 14 to 35 % top-1, and 70 to 80 % after `refit`.
        calibration_examples: Number of training examples for importance, repair and sensitivity.

    Raises:
        UserError: The importance or repair is unknown, or there are no examples.
    """

    importance: str = "l2"
    repair: str = "refit"
    calibration_examples: int = 256

    def __post_init__(self) -> None:
        check_fields(self, "candidate")
        at_least("candidate", 1, calibration_examples=self.calibration_examples)
        IMPORTANCES.find(self.importance, "candidate.importance")
        REPAIRS.find(self.repair, "candidate.repair")

    @property
    def passes(self) -> frozenset[str]:
        """Names of the passes over the calibration examples that are made once for all candidates."""
        return pruner_passes(self.importance, self.repair)

    @property
    def examples(self) -> int:
        """Number of calibration examples that the repair of each candidate reads."""
        return self.calibration_examples if REPAIRS.find(self.repair).reads_examples else 0
