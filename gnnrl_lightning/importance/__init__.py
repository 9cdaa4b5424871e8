"""Importance of channels: a score for every channel, over all parameters that are removed with it."""

from gnnrl_lightning.importance.table import (
    IMPORTANCES,
    Calibration,
    Criterion,
    Importance,
    from_elements,
    importance_scores,
    keep_best,
    try_own_importance,
)

__all__ = [
    "IMPORTANCES",
    "Calibration",
    "Criterion",
    "Importance",
    "from_elements",
    "importance_scores",
    "keep_best",
    "try_own_importance",
]
