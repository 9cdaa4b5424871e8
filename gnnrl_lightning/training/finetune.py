"""Training: of the dense network, and of the pruned one afterwards."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from gnnrl_lightning.data import Batch, BatchLoader, ImageData, Images
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks import eval_mode
from gnnrl_lightning.processes import share_weights
from gnnrl_lightning.seeds import derived_seed
from gnnrl_lightning.training.checkpoint import LatestCheckpoint


@dataclass(frozen=True)
class TrainingOptions:
    """How to train: SGD with Nesterov momentum, linear warm-up and a cosine to zero, in every step.

    Args:
        epochs: passes over the training images; 0 trains nothing.
        learning_rate: largest learning rate, reached after the warm-up.
        momentum: Nesterov momentum.
        weight_decay: weight decay of all parameters.
        label_smoothing: share of the target that is spread over all classes, from 0 to 1.
        warmup_epochs: epochs in which the learning rate rises from zero, fractions allowed.
        gradient_clip: largest norm of the gradient of a step; 0 clips nothing.
        distillation_weight: share of the loss that compares with the teacher's outputs, from 0 to 1; above 0
            it needs a teacher.
        distillation_temperature: temperature that softens both networks' outputs for it.
    """

    epochs: int = 100
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    warmup_epochs: float = 1.0
    gradient_clip: float = 0.0
    distillation_weight: float = 0.0
    distillation_temperature: float = 4.0

    def __post_init__(self) -> None:
        """Refuse values outside their ranges.

        Raises:
            UserError: a value is out of range.
        """
        ranges = {
            "epochs": (0, math.inf),
            "learning_rate": (0, math.inf),
            "momentum": (0, 1),
            "weight_decay": (0, math.inf),
            "label_smoothing": (0, 1),
            "warmup_epochs": (0, math.inf),
            "gradient_clip": (0, math.inf),
            "distillation_weight": (0, 1),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(f"{name}={getattr(self, name)}: expected {low} to {high}")
        if not self.distillation_temperature > 0:
            raise UserError(f"distillation_temperature={self.distillation_temperature}: expected above 0")


def learning_rate_factor(step: int, steps: int, warmup_steps: float) -> float:
    r"""The share of the largest learning rate that step t of T has, with a warm-up of w steps.

    :math:`(t + 1) / (w + 1)` for t < w, then :math:`(1 + \cos(\pi (t - w) / (T - w))) / 2`.

    Args:
        step: optimizer steps taken so far, t.
        steps: steps of the whole training, T.
        warmup_steps: steps of the warm-up, w.

    Source: Loshchilov and Hutter, SGDR, https://arxiv.org/abs/1608.03983, equation 5, without restarts.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return (1 + math.cos(math.pi * min(1.0, (step - warmup_steps) / max(1.0, steps - warmup_steps)))) / 2


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    r"""Divergence of a network's softened outputs from its teacher's.

    :math:`T^2 \, KL(\mathrm{softmax}(z_t / T) \,\|\, \mathrm{softmax}(z / T))`, mean over the batch.

    Args:
        logits: the network's outputs, shape `(B, classes)`.
        teacher_logits: the teacher's, same shape.
        temperature: T.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network, https://arxiv.org/abs/1503.02531,
        section 2.
    """
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


class Top1(MulticlassAccuracy):
    """Share of images whose largest output is their class, in percent.

    Args:
        num_classes: number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes=num_classes, average="micro", validate_args=False)

    def compute(self) -> Tensor:
        """Percent of all images seen since the last reset."""
        return 100 * super().compute()


class Classifier(LightningModule):
    """An image classifier in training; logs `loss` and `top1` (percent) under train/, val/ and test/.

    Args:
        network: images `(B, C, H, W)` to logits `(B, num_classes)`; parameters that do not require gradients
            stay as they are.
        options: how to train.
        num_classes: number of classes.
        teacher: network to distil from; it is run in evaluation mode, and is no part of checkpoints.
        seed: of what the network draws at random (dropout), in each epoch anew; None leaves PyTorch's generators
            alone.
    """

    def __init__(
        self,
        network: nn.Module,
        options: TrainingOptions,
        num_classes: int,
        teacher: nn.Module | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if options.distillation_weight > 0 and teacher is None:
            raise UserError(f"distillation_weight={options.distillation_weight} without a teacher: expected 0")
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise UserError("the network has nothing to train: no parameter requires gradients")
        self.network = network
        self.options = options
        # in a tuple: a submodule would be saved, synchronised and set to training mode
        self._teacher = (teacher,)
        self._seed = seed
        self._steps = 1
        self.train_top1, self.val_top1, self.test_top1 = (Top1(num_classes) for _ in range(3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of normalised images."""
        return self.network(images)

    def on_fit_start(self) -> None:
        """Bring the teacher to the device."""
        (teacher,) = self._teacher
        if teacher is not None:
            teacher.to(self.device)

    def on_train_start(self) -> None:
        """Learn how long the training is, and set the learning rate of its next step.

        Not in `configure_optimizers`: asked there, Lightning makes the loader before it restores the loader's
        state, and a run that is resumed within an epoch would begin that epoch anew.
        """
        self._steps = int(self.trainer.estimated_stepping_batches)
        rate = self.options.learning_rate * self._factor(self.trainer.global_step)
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate

    def on_train_epoch_start(self) -> None:
        """Seed PyTorch's generators: a checkpoint does not hold their state."""
        if self._seed is not None:
            torch.manual_seed(derived_seed(self._seed, self.trainer.current_epoch, self.trainer.global_rank))

    def _factor(self, step: int) -> float:
        warmup = self.options.warmup_epochs * self._steps / max(1, self.options.epochs)
        return learning_rate_factor(step, self._steps, warmup)

    def _step(self, batch: Batch, stage: str) -> tuple[Tensor, Tensor]:
        """Logits and cross-entropy of a batch; accuracy and cross-entropy are logged."""
        logits = self(batch.images)
        smoothing = self.options.label_smoothing if stage == "train" else 0.0
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=smoothing)
        metric: Top1 = getattr(self, f"{stage}_top1")
        metric(logits.detach(), batch.labels)
        size = len(batch.labels)
        self.log(f"{stage}/loss", loss, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)
        self.log(f"{stage}/top1", metric, on_step=False, on_epoch=True, batch_size=size)
        return logits, loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy, mixed with the distance to the teacher's outputs where there is a teacher."""
        logits, loss = self._step(batch, "train")
        (teacher,) = self._teacher
        weight = self.options.distillation_weight
        if teacher is None or weight == 0:
            return loss
        with eval_mode(teacher), torch.no_grad():
            teacher_logits = teacher(batch.images)
        distance = distillation_loss(logits, teacher_logits, self.options.distillation_temperature)
        return (1 - weight) * loss + weight * distance

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log accuracy and cross-entropy of the search split."""
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log accuracy and cross-entropy of the test images."""
        self._step(batch, "test")

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """SGD, its learning rate set in every step."""
        options = self.options
        optimizer = torch.optim.SGD(
            [parameter for parameter in self.network.parameters() if parameter.requires_grad],
            lr=options.learning_rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            nesterov=options.momentum > 0,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def quiet_trainer(**flags: object) -> Trainer:
    """A Trainer that trains and writes nothing: no logs, checkpoints, progress bar, summary or validation.

    Args:
        **flags: arguments of `Trainer`, which replace these defaults.
    """
    defaults = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
    }
    return Trainer(**{**defaults, **flags})  # pyright: ignore[reportArgumentType]


def train(
    network: nn.Module,
    data: ImageData,
    options: TrainingOptions,
    *,
    trainer: Callable[..., Trainer] = quiet_trainer,
    seed: int = 0,
    teacher: nn.Module | None = None,
    checkpoint: Path | None = None,
) -> None:
    """Train a network in place.

    The network ends in evaluation mode, on the device where it was; which parameters require gradients does
    not change. Everything random derives from `seed` (the global generators are left as they were), so that
    the same seed gives the same weights on a CPU. Several processes all end with the first one's weights.

    Args:
        network: images `(B, C, H, W)` to logits `(B, classes)`.
        data: the images, set up; for this run its training order and augmentation derive from `seed`.
        options: how to train.
        trainer: makes the Trainer; called with `max_epochs` and `gradient_clip_val`.
        seed: seed of the order, of the augmentation and of dropout.
        teacher: network to distil from, needed if `options.distillation_weight` is above 0.
        checkpoint: file in which each epoch leaves a checkpoint, and from which the training goes on, to the same
            weights, where it is there; None: it leaves none.

    Raises:
        UserError: distillation without a teacher, or a network without parameters to train.
    """
    classifier = Classifier(network, options, data.num_classes, teacher, seed)
    latest = LatestCheckpoint(checkpoint)
    devices = [(module, _device(module)) for module in (network, teacher) if module is not None]
    data_seed, data.seed = data.seed, seed
    try:
        if options.epochs > 0:
            with isolate_rng():
                network.train()
                runner = trainer(max_epochs=options.epochs, gradient_clip_val=options.gradient_clip or None)
                runner.callbacks.append(latest)  # pyright: ignore[reportAttributeAccessIssue]
                runner.fit(classifier, datamodule=data, ckpt_path=latest.found, weights_only=True)
                share_weights(network)
    finally:
        data.seed = data_seed
        network.eval()
        for module, device in devices:
            module.to(device)


def top1(network: nn.Module, images: Images, data: ImageData, device: torch.device | str | None = None) -> float:
    """Share of images whose largest output is their class.

    Args:
        network: images to logits; run in evaluation mode on `device` and left as it was.
        images: what to classify.
        data: gives the normalisation and the batch size.
        device: where to compute; None where the network is.

    Returns:
        Percent.
    """
    home = _device(network)
    device = home if device is None else torch.device(device)
    correct = 0
    try:
        with eval_mode(network.to(device)), torch.inference_mode():
            for batch in BatchLoader(images, data.eval_batch_size):
                guess = network(data.normalize(batch.images.to(device))).argmax(1)
                correct += int((guess == batch.labels.to(device)).sum())
    finally:
        network.to(home)
    return 100 * correct / len(images)


def _device(network: nn.Module) -> torch.device:
    return next((tensor.device for tensor in network.state_dict().values()), torch.device("cpu"))
