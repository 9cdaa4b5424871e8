"""Training options."""

from __future__ import annotations

from dataclasses import dataclass

from gnnrl_lightning.checks import real, whole
from gnnrl_lightning.options import check_fields
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
        check_fields(self)
        whole("epochs", self.epochs)
        for name in ("learning_rate", "weight_decay", "warmup_epochs", "gradient_clip", "mixup"):
            real(name, getattr(self, name), 0)
        real("distillation_weight", self.distillation_weight, 0, 1)
        real("ema_decay", self.ema_decay, 0, 1, "[)")
        real("distillation_temperature", self.distillation_temperature, 0, ends="(]")
        SCHEDULES.find(self.schedule)
        check_optimizer(self.optimizer)
