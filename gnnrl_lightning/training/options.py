"""Training options and the learning rate schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gnnrl_lightning.errors import UserError


@dataclass(frozen=True)
class TrainingOptions:
    """Options of SGD with Nesterov momentum; the learning rate has a linear warm-up and a cosine decay, step by step.

    Args:
        epochs: Passes over the training examples; 0 trains nothing.
        learning_rate: Largest learning rate, reached after the warm-up.
        momentum: Nesterov momentum.
        weight_decay: Weight decay of all parameters.
        warmup_epochs: Epochs in which the learning rate rises from zero, fractions allowed.
        gradient_clip: Largest norm of the gradient of a step; 0: no clipping.
        distillation_weight: Share of the distillation loss, from 0 to 1; above 0 it needs a teacher.
        distillation_temperature: Temperature that softens both networks' outputs for it, if they are log-probabilities.
    """

    epochs: int = 100
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_epochs: float = 1.0
    gradient_clip: float = 0.0
    distillation_weight: float = 0.0
    distillation_temperature: float = 4.0

    def __post_init__(self) -> None:
        """Refuse values outside their ranges.

        Raises:
            UserError: A value is out of range.
        """
        ranges = {
            "epochs": (0, math.inf),
            "learning_rate": (0, math.inf),
            "momentum": (0, 1),
            "weight_decay": (0, math.inf),
            "warmup_epochs": (0, math.inf),
            "gradient_clip": (0, math.inf),
            "distillation_weight": (0, 1),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high or math.isinf(getattr(self, name)):
                raise UserError(f"{name}={getattr(self, name)}: expected {low} to {high}")
        if not self.distillation_temperature > 0:
            raise UserError(f"distillation_temperature={self.distillation_temperature}: expected above 0")


def learning_rate_factor(step: int, steps: int, warmup_steps: float) -> float:
    r"""Return the learning rate of step t of T as a share of the largest one, with a warm-up of w steps.

    :math:`(t + 1) / (w + 1)` for t < w, then :math:`(1 + \cos(\pi (t - w) / (T - w))) / 2`.

    Args:
        step: Optimiser steps taken so far, t.
        steps: Steps of the whole training, T.
        warmup_steps: Steps of the warm-up, w.

    Source: Loshchilov and Hutter, SGDR, https://arxiv.org/abs/1608.03983, equation 5, without restarts.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return (1 + math.cos(math.pi * min(1.0, (step - warmup_steps) / max(1.0, steps - warmup_steps)))) / 2
