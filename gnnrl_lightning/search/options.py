"""What a search may spend, and what it may know beforehand."""

from __future__ import annotations

from dataclasses import dataclass

from gnnrl_lightning.options import at_least
from gnnrl_lightning.surrogate.measures import SENSITIVITIES


@dataclass(frozen=True)
class SearchOptions:
    """What a search may spend, and what it may know beforehand.

    Args:
        evaluations: Evaluations at most, the starting candidates and the sensitivity's examples included.
        sensitivity: How the sensitivity is measured, what narrowing each group alone costs: a name of
            `gnnrl_lightning.surrogate.measures.SENSITIVITIES` or an import path. It gives two more starting candidates,
            and the agent statistics for its state and the proxy in which it warms up; null: none of these.

    Raises:
        UserError: An unknown sensitivity, or no evaluations.
    """

    evaluations: int = 100
    sensitivity: str | None = "outputs"

    def __post_init__(self) -> None:
        at_least("search", 1, evaluations=self.evaluations)
        if self.sensitivity is not None:
            SENSITIVITIES.find(self.sensitivity, "search.sensitivity")
