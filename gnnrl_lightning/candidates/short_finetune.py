"""A few steps of training before a candidate is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gnnrl_lightning.data.images import Draw, Images
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.seeds import derived_seed, generator_for
from gnnrl_lightning.training.finetune import learning_rate_factor


@dataclass(frozen=True)
class ShortFinetune:
    """Trains a network for a fixed number of steps, always on the same batches.

    SGD with Nesterov momentum; the learning rate rises for a tenth of the steps and falls along a cosine to zero.
    A plain loop, not a Trainer: a candidate is one of thousands, and Trainers of several processes would fight over
    one device.

    Args:
        images: Training images; those on disk are decoded anew for each network.
        augment: `(uint8 images, generator) -> uint8 images`.
        normalize: uint8 images -> network inputs.
        steps: Optimiser steps.
        batch_size: Images of a step.
        learning_rate: The largest one.
        momentum: Nesterov momentum.
        weight_decay: Of all parameters.
        seed: Of the order of the images and of the augmentation.
        precision: "32" or "bf16": bfloat16 autocast.

    Raises:
        UserError: No steps, or an unknown precision.
    """

    images: Images
    augment: Callable[[Tensor, torch.Generator], Tensor]
    normalize: Callable[[Tensor], Tensor]
    steps: int
    batch_size: int = 128
    learning_rate: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 0
    precision: str = "32"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"{self.steps} steps of fine-tuning: expected at least 1")
        if self.precision not in ("32", "bf16"):
            raise UserError(f"precision is {self.precision!r}: expected '32' or 'bf16'")

    @property
    def seen(self) -> int:
        """Images that all steps together read."""
        return self.steps * min(self.batch_size, len(self.images))

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The normalised images `(batch_size, C, H, W)` and labels `(batch_size,)` of each step."""
        draws = list(self._draws())
        for step, (draw, pixels) in enumerate(zip(draws, self.images.read(draws), strict=True)):
            augmented = self.augment(pixels, generator_for(self.seed, 1, step))
            yield self.normalize(augmented), self.images.labels[draw.indices]

    def _draws(self) -> Iterator[Draw]:
        """Which images each step reads."""
        count, size = len(self.images), min(self.batch_size, len(self.images))
        order, epoch = torch.empty(0, dtype=torch.int64), 0
        for step in range(self.steps):
            if len(order) < size:
                order = torch.randperm(count, generator=generator_for(self.seed, 0, epoch))
                epoch += 1
            yield Draw(order[:size], derived_seed(self.seed, 1, step))
            order = order[size:]

    def __call__(self, network: nn.Module) -> None:
        """Train a network in place; it ends in evaluation mode."""
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        device = parameters[0].device
        optimizer = torch.optim.SGD(
            parameters, lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=True
        )
        network.train()
        with torch.random.fork_rng([]), torch.enable_grad():
            torch.manual_seed(derived_seed(self.seed, 2))  # for dropout
            for step, (images, labels) in enumerate(self.batches()):
                factor = learning_rate_factor(step, self.steps, self.steps / 10)
                for group in optimizer.param_groups:
                    group["lr"] = self.learning_rate * factor
                with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                    loss = cross_entropy(network(images.to(device)), labels.to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        network.eval()
