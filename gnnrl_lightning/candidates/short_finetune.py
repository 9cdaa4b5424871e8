"""Short fine-tuning of a candidate before it is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from gnnrl_lightning.checks import one_of
from gnnrl_lightning.data.examples import Draw, Examples
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.objective import Objective
from gnnrl_lightning.seeds import derived_seed, generator_for, kept_random_states, seed_generators
from gnnrl_lightning.training.schedules import cosine
from gnnrl_lightning.trees import Tree, call, to_device

PASSES = 3
"""Cost of a backward pass and the forward pass before it, in forward passes."""


@dataclass(frozen=True)
class ShortFinetune:
    """Trains a network for a fixed number of steps on fixed batches.

    It uses SGD with Nesterov momentum; the learning rate warms up over a tenth of the steps and decays to zero along a
    cosine. It is a plain loop rather than a Trainer because there are thousands of candidates, and Trainers of several
    processes would compete for one device.

    Args:
        examples: Training examples; images on disk are decoded again for each network.
        augment: `(inputs, targets, generator) -> (inputs, targets)`, see `gnnrl_lightning.data.ExampleData.augment`.
        normalize: Inputs of the examples -> network inputs.
        objective: Provides the loss.
        steps: Number of optimiser steps.
        batch_size: Number of examples per step.
        learning_rate: Maximum learning rate.
        momentum: Nesterov momentum.
        weight_decay: Weight decay of all parameters.
        seed: Seed of the order of the examples and of the augmentation.
        precision: "32" or "bf16": bfloat16 autocast.

    Raises:
        UserError: `steps` is below 1, or the precision is unknown.
    """

    examples: Examples
    augment: Callable[[Tree, Tree, torch.Generator], tuple[Tree, Tree]]
    normalize: Callable[[Tree], Tree]
    objective: Objective
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
        one_of("precision", self.precision, ("32", "bf16"))

    @property
    def cost(self) -> int:
        """Cost of all steps, in forward passes of one example."""
        return PASSES * self.steps * min(self.batch_size, len(self.examples))

    def batches(self) -> Iterator[tuple[Tree, Tree]]:
        """The normalised inputs and the targets of each step."""
        for step, batch in enumerate(self.examples.read(self._draws())):
            inputs, targets = self.augment(*batch, generator_for(self.seed, 1, step))
            yield self.normalize(inputs), targets

    def _draws(self) -> Iterator[Draw]:
        """Draw the examples of each step."""
        count, size = len(self.examples), min(self.batch_size, len(self.examples))
        order, epoch = torch.empty(0, dtype=torch.int64), 0
        for step in range(self.steps):
            if len(order) < size:
                order = torch.randperm(count, generator=generator_for(self.seed, 0, epoch))
                epoch += 1
            yield Draw(order[:size], derived_seed(self.seed, 1, step))
            order = order[size:]

    def __call__(self, network: nn.Module) -> None:
        """Train a network in place and leave it in evaluation mode."""
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        device = parameters[0].device
        optimizer = torch.optim.SGD(
            parameters, lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=True
        )
        network.train()
        with kept_random_states(), torch.enable_grad():
            seed_generators(derived_seed(self.seed, 2), devices=True)  # for dropout
            for step, (inputs, targets) in enumerate(self.batches()):
                factor = cosine(step, self.steps, self.steps / 10)
                for group in optimizer.param_groups:
                    group["lr"] = self.learning_rate * factor
                with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                    outputs = call(network, to_device(inputs, device))
                    loss = self.objective.loss(outputs, to_device(targets, device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        network.eval()
