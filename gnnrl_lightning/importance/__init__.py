"""Which channels matter: a score for every channel, over everything that goes with it."""

from gnnrl_lightning.importance.criteria import (
    CRITERIA,
    RANKINGS,
    Criterion,
    Ranking,
    check_importance,
    importance_passes,
    importance_scores,
    keep_best,
)

__all__ = [
    "CRITERIA",
    "RANKINGS",
    "Criterion",
    "Ranking",
    "check_importance",
    "importance_passes",
    "importance_scores",
    "keep_best",
]
