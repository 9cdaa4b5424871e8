"""Rewards: what an evaluated candidate is worth. A user's own is any callable from Evaluation to float."""

from __future__ import annotations

from typing import Any


class NegativeTop1Error:
    """Minus the top-1 error on the search split, as a fraction: -(1 - top1 / 100)."""

    def __call__(self, evaluation: Any) -> float:
        """Reward of an evaluation with `top1` in percent."""
        return evaluation.top1 / 100 - 1


class NegativeCrossEntropy:
    """Minus the cross-entropy on the search split, in nats."""

    def __call__(self, evaluation: Any) -> float:
        """Reward of an evaluation with `cross_entropy` in nats."""
        return -evaluation.cross_entropy
