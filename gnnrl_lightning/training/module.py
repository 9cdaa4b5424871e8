"""The LightningModule that trains a network for its objective."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from gnnrl_lightning.data import Batch
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks import eval_mode
from gnnrl_lightning.objective import Objective
from gnnrl_lightning.objective.protocol import added_up, measure
from gnnrl_lightning.processes import log_weight
from gnnrl_lightning.seeds import derived_seed, seed_generators
from gnnrl_lightning.training.distillation import DISTILLATIONS, Lesson, Teacher, paired, read_by
from gnnrl_lightning.training.mixup import Mixed, mix
from gnnrl_lightning.training.optimizers import make_optimizer
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.trees import Tree, call, channels_last, count, floats, map_tensors

MIXUP = 1
"""Last part of the key of mixup's random numbers: the rest of it is the key of the batch's augmentation."""


class SupervisedModule(LightningModule):
    """A network in training; logs `loss` and the objective's figures of each epoch under train/, val/ and test/.

    With mixup, those of the training are about mixed inputs: `loss` is for both targets, and the figures are for the
    one with the larger weight.

    Attributes:
        holdout: The figures of the holdout after each epoch, if the trainer validates.

    Args:
        network: Maps inputs to outputs, see `gnnrl_lightning.trees.call`; parameters that do not require gradients are
            not changed.
        options: Training options.
        objective: Computes loss and figures.
        teacher: What to distil from; not saved in checkpoints.
        seed: Seed of the network's own randomness (dropout), set in each epoch; None: leave the generators alone.

    Raises:
        UserError: Distillation without a teacher, or no parameters to train.
    """

    def __init__(
        self,
        network: nn.Module,
        options: TrainingOptions,
        objective: Objective,
        teacher: Teacher | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self._distillation_weight = options.weight_of(teacher)
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise UserError(
                "the network has nothing to train: no parameter requires gradients; call requires_grad_() on some"
            )
        self.network = network
        self.options = options
        self.objective = objective
        self._distillation = DISTILLATIONS.find(options.distillation)
        self._teacher = teacher  # no module: a submodule would be saved, synchronised and set to training mode
        self._seed = seed
        self._steps: int | None = None  # until the training starts
        self.holdout: list[dict[str, float]] = []
        self._sums: dict[str, list[dict[str, Tensor]]] = {}
        self._seen: dict[str, int] = {}

    def forward(self, inputs: Tree) -> Tree:
        """Outputs for normalised inputs."""
        return self._run(self.network, inputs)

    def _run(self, network: nn.Module, inputs: Tree) -> Tree:
        return call(network, channels_last(inputs, self.options.channels_last is True))

    def on_fit_start(self) -> None:
        """Move the teacher to the device."""
        if self._teacher is not None:
            self._teacher.network.to(self.device)

    def on_train_start(self) -> None:
        """Determine the number of steps, and set the learning rates of the next one.

        This cannot be done in `configure_optimizers`: it would make Lightning create the loader before restoring the
        loader's state, and a run resumed within an epoch would repeat that epoch.
        """
        self._steps = int(self.trainer.estimated_stepping_batches)
        share = self._factor(self.trainer.global_step)
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * share

    def on_train_epoch_start(self) -> None:
        """Seed the generators of Python, NumPy, PyTorch and devices: a checkpoint does not hold their state."""
        if self._seed is not None:
            key = self._seed, self.trainer.current_epoch, self.trainer.global_rank
            seed_generators(derived_seed(*key), devices=True)

    def _factor(self, step: int) -> float:
        return 1.0 if self._steps is None else self.options.share(step, self._steps)

    def _record(self, stage: str, outputs: Tree, targets: Tree, loss: Tensor) -> None:
        """Log the loss of a batch and accumulate the sums of the figures."""
        size = count(targets)
        with torch.no_grad():
            measured = self.objective.measure(floats(map_tensors(torch.Tensor.detach, outputs)), targets)
        self._sums.setdefault(stage, []).append(dict(measured.sums))
        self._seen[stage] = self._seen.get(stage, 0) + size
        self.log(f"{stage}/loss", loss, on_step=False, on_epoch=True, batch_size=log_weight(size), sync_dist=True)

    def _log_figures(self, stage: str) -> dict[str, float]:
        """Log and return the figures of an epoch over the examples of all processes."""
        batches, seen = self._sums.pop(stage, None), self._seen.pop(stage, 0)
        if batches is None:
            return {}
        totals = added_up(batches)
        flat = torch.tensor([float(seen), *(value for values in totals.values() for value in values)])
        every = self.trainer.strategy.reduce(flat.double().to(self.device), reduce_op="sum").tolist()
        examples, elements = every[0], iter(every[1:])
        summed = {name: [next(elements) for _ in values] for name, values in totals.items()}
        figures = measure(self.objective, summed, int(examples))
        for name, value in figures.items():
            self.log(f"{stage}/{name}", torch.tensor(value, device=self.device), sync_dist=True)
        return figures

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss, mixed with the distillation loss if there is a teacher."""
        mixed, weight = self._mixed(batch, batch_idx), self._distillation_weight
        outputs, distance = (self(mixed.inputs), None) if weight == 0 else self.distil(mixed.inputs)
        loss = mixed.loss(self.objective, outputs)
        self._record("train", outputs, batch.targets, loss)
        return loss if distance is None else (1 - weight) * loss + weight * distance

    def distil(self, inputs: Tree) -> tuple[Tree, Tensor]:
        """Return the outputs for normalised inputs, and the loss `()` of distilling from the teacher."""
        teacher = self._teacher
        assert teacher is not None, "checked by the constructor, if the weight is above 0"
        with read_by(self.network, dict.fromkeys(teacher.kept)) as ours:
            outputs = self(inputs)
        with eval_mode(teacher.network), torch.no_grad(), read_by(teacher.network, teacher.kept) as theirs:
            taught = self._run(teacher.network, inputs)
        lesson = Lesson(self.objective, self.options.distillation_temperature, outputs, taught, paired(ours, theirs))
        return outputs, self._distillation(lesson)

    def _mixed(self, batch: Batch, batch_idx: int) -> Mixed:
        """Mix the examples of a batch, if configured; the random numbers depend on seed, epoch, batch and process."""
        if self.options.mixup == 0:
            return Mixed(batch.inputs, batch.targets, batch.targets, 1.0)
        key = (self._seed or 0, self.trainer.current_epoch, batch_idx, self.trainer.global_rank, MIXUP)
        return mix(batch.inputs, batch.targets, self.options.mixup, *key)

    def _evaluate(self, batch: Batch, stage: str) -> None:
        outputs = self(batch.inputs)
        self._record(stage, outputs, batch.targets, self.objective.loss(outputs, batch.targets))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss and figures of the holdout."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss and figures of the test examples."""
        self._evaluate(batch, "test")

    def on_train_epoch_end(self) -> None:
        """Log the figures of the training examples."""
        self._log_figures("train")

    def on_validation_epoch_end(self) -> None:
        """Log the figures of the holdout, and keep those of a training's epochs."""
        figures = self._log_figures("val")
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self.holdout.append(figures)

    def on_test_epoch_end(self) -> None:
        """Log the figures of the test examples."""
        self._log_figures("test")

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the optimiser; its learning rate is set in every step."""
        options = self.options
        optimizer = make_optimizer(
            options.optimizer,
            self.network.parameters(),
            options.learning_rate,
            options.weight_decay,
            options.decay_norms_and_biases,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the figures of the holdout."""
        checkpoint["holdout"] = self.holdout

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue with those of the epochs before."""
        self.holdout = checkpoint["holdout"]
