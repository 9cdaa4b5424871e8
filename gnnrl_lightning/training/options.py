"""Training options."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from gnnrl_lightning.checks import one_of, real, whole
from gnnrl_lightning.errors import UserError, finite_number
from gnnrl_lightning.options import AUTO, check_fields
from gnnrl_lightning.training.distillation import DISTILLATIONS
from gnnrl_lightning.training.optimizers import OptimizerSpec, check_optimizer
from gnnrl_lightning.training.schedules import SCHEDULES

REFERENCE = "32"
"""Precision with which all others must agree."""

PRECISIONS = {REFERENCE: "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
"""Precision of training -> its name in Lightning."""

DISTILLATION = 0.9
"""Share of the distillation loss if that is auto and there is a teacher."""


ROUNDING = 1e-6
"""By what a share of the learning rate may exceed 1."""


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a training.

    Args:
        epochs: Passes over the training examples; 0 trains nothing.
        optimizer: sgd (with Nesterov momentum 0.9), adamw, or an import path such as torch.optim.RAdam; class_path and
            init_args if it has arguments besides lr and weight_decay.
        learning_rate: Largest learning rate, reached after the warm-up.
        weight_decay: Weight decay.
        decay_norms_and_biases: Whether weight decay also applies to parameters of one dimension.
        schedule: Learning-rate schedule over the steps: cosine, linear, one_cycle, or the import path of your own, see
            `gnnrl_lightning.training.schedules`.
        warmup_epochs: Epochs in which the learning rate rises, fractions allowed.
        gradient_clip: Maximum gradient norm; 0: no clipping.
        mixup: Alpha of mixup, which trains on weighted means of two examples, see `gnnrl_lightning.training.mixup`; 0:
            none.
        ema_decay: Decay of the exponential moving average of the weights, which is the result of the training; 0: the
            last weights.
        distillation: What is learned from a teacher: outputs, features (also the inputs of the layers), or the import
            path of your own, see `gnnrl_lightning.training.distillation`.
        distillation_weight: Share of the distillation loss, from 0 to 1; above 0 it needs a teacher, whose forward pass
            is added to each step. auto: 0.9 with a teacher, as in fine-tuning of pruned networks, else 0.
        distillation_temperature: Temperature that softens both networks' outputs in the distillation loss, if they are
            log-probabilities.
        precision: 32; bf16 or 16: operators that allow it in bfloat16 or float16, the weights in float32; or auto: the
            fastest of 32 and bf16, measured on training steps, see `gnnrl_lightning.speed.training`.
        channels_last: Whether images and weights are stored with their channels last; auto: measured together with the
            precision, else false.

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
    distillation: str = "outputs"
    distillation_weight: float | Literal["auto"] = AUTO
    distillation_temperature: float = 4.0
    precision: str = REFERENCE
    channels_last: bool | Literal["auto"] = AUTO

    def __post_init__(self) -> None:
        check_fields(self)
        whole("epochs", self.epochs)
        for name in ("learning_rate", "weight_decay", "warmup_epochs", "gradient_clip", "mixup"):
            real(name, getattr(self, name), 0)
        if self.distillation_weight != AUTO:
            real("distillation_weight", self.distillation_weight, 0, 1)
        real("ema_decay", self.ema_decay, 0, 1, "[)")
        real("distillation_temperature", self.distillation_temperature, 0, ends="(]")
        one_of("precision", self.precision, (*PRECISIONS, AUTO))
        SCHEDULES.find(self.schedule)
        DISTILLATIONS.find(self.distillation)
        check_optimizer(self.optimizer)

    def weight_of(self, teacher: object | None) -> float:
        """Share of the distillation loss.

        Args:
            teacher: The teacher; None: there is none.

        Raises:
            UserError: A share above 0 without a teacher.
        """
        if self.distillation_weight == AUTO:
            return 0.0 if teacher is None else DISTILLATION
        if teacher is None and self.distillation_weight > 0:
            raise UserError(f"distillation_weight is {self.distillation_weight} without a teacher: expected 0")
        return self.distillation_weight

    @property
    def open(self) -> bool:
        """Whether there is a training whose precision is to be measured."""
        return self.epochs > 0 and self.precision == AUTO

    @property
    def closed(self) -> TrainingOptions:
        """The options without "auto": what has not been measured is as usual."""
        precision = REFERENCE if self.precision == AUTO else self.precision
        return replace(self, precision=precision, channels_last=self.channels_last is True)

    def share(self, step: int, steps: int) -> float:
        """The learning rate of a step, as a share of the largest one.

        Args:
            step: Steps taken so far.
            steps: Steps of the whole training.

        Raises:
            UserError: The schedule fails, or does not return a number from 0 to 1.
        """
        warmup, name = self.warmup_epochs * steps / max(1, self.epochs), f"schedule {self.schedule}"
        value = finite_number(partial(SCHEDULES.find(self.schedule), step, steps, warmup), name)
        if not 0 <= value <= 1 + ROUNDING:
            raise UserError(
                f"{name} is {value:g} in step {step} of {steps}: expected a share of learning_rate, from 0 to 1"
            )
        return value

    @property
    def lightning_precision(self) -> str:
        """The precision as Lightning's trainer names it.

        Raises:
            UserError: It is auto, and has not been measured.
        """
        if self.precision == AUTO:
            raise UserError(
                "precision is auto, which jobs measure: give 32 or bf16, or see "
                "gnnrl_lightning.speed.training.tune_training"
            )
        return PRECISIONS[self.precision]
