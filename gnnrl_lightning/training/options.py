"""Training options."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.options import check_numbers
from gnnrl_lightning.training.optimizers import OptimizerSpec, check_optimizer
from gnnrl_lightning.training.schedules import SCHEDULES


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a training; the learning rate follows a schedule with a warm-up, step by step.

    Args:
        epochs: Passes over the training examples; 0 trains nothing.
        optimizer: sgd (with Nesterov momentum 0.9), adamw, or an import path such as torch.optim.RAdam; class_path and
            init_args if it has arguments besides lr and weight_decay.
        learning_rate: Largest learning rate, reached after the warm-up.
        weight_decay: Weight decay.
        decay_norms_and_biases: Whether it also applies to parameters of one dimension.
        schedule: The learning rate over the steps: cosine, linear, one_cycle, or the import path of your own, see
            `gnnrl_lightning.training.schedules`.
        warmup_epochs: Epochs in which the learning rate rises, fractions allowed.
        gradient_clip: Largest norm of the gradient of a step; 0: no clipping.
        mixup: Alpha of mixup, which trains on weighted means of two examples, see `gnnrl_lightning.training.mixup`; 0:
            none.
        ema_decay: Decay of the exponential moving average of the weights, which is the result of the training; 0: the
            last weights.
        distillation_weight: Share of the distillation loss, from 0 to 1; above 0 it needs a teacher, whose forward pass
            is added to each step.
        distillation_temperature: Temperature that softens both networks' outputs for it, if they are log-probabilities.

    Raises:
        UserError: A value is out of range, or optimiser or schedule are unknown.
    """

    epochs: int = 100
    optimizer: OptimizerSpec = "sgd"
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    decay_norms_and_biases: bool = True
    schedule: str = "cosine"
    warmup_epochs: float = 1.0
    gradient_clip: float = 0.0
    mixup: float = 0.0
    ema_decay: float = 0.0
    distillation_weight: float = 0.0
    distillation_temperature: float = 4.0

    def __post_init__(self) -> None:
        check_numbers(self)
        ranges = {
            "epochs": (0, math.inf),
            "learning_rate": (0, math.inf),
            "weight_decay": (0, math.inf),
            "warmup_epochs": (0, math.inf),
            "gradient_clip": (0, math.inf),
            "mixup": (0, math.inf),
            "distillation_weight": (0, 1),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high or math.isinf(getattr(self, name)):
                raise UserError(f"{name}={getattr(self, name)}: expected {low} to {high}")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay={self.ema_decay}: expected at least 0 and below 1")
        if not self.distillation_temperature > 0:
            raise UserError(f"distillation_temperature={self.distillation_temperature}: expected above 0")
        SCHEDULES.find(self.schedule)
        check_optimizer(self.optimizer)
