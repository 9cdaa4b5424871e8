"""Options of a search."""

from __future__ import annotations

from dataclasses import dataclass

from gnnrl_lightning.options import at_least, check_fields
from gnnrl_lightning.surrogate.measures import SENSITIVITIES


@dataclass(frozen=True)
class SearchOptions:
    """The evaluation budget of a search, and its sensitivity.

    Args:
        evaluations: Maximum number of evaluations, including the starting candidates and the examples of the
            sensitivity.
        sensitivity: Measure of the loss from narrowing each group alone: outputs, reconstruction, or the import path of
            your own, see `gnnrl_lightning.surrogate.measures`. It yields two more starting candidates and, for the
            agent, statistics for the state and the proxy for the warm-up; null: none of these.

    Raises:
        UserError: An unknown sensitivity, or no evaluations.
    """

    evaluations: int = 200
    sensitivity: str | None = "outputs"

    def __post_init__(self) -> None:
        check_fields(self, "search")
        at_least("search", 1, evaluations=self.evaluations)
        if self.sensitivity is not None:
            SENSITIVITIES.find(self.sensitivity, "search.sensitivity")
