"""The exponential moving average of a network's weights while it trains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn


class MovingAverage(Callback):
    r"""Averages parameters and buffers after each optimiser step; validation sees the average.

    The first step begins the average. After n further ones, :math:`\bar\theta \leftarrow d \bar\theta + (1 - d) \theta`
    with :math:`d = \min(decay, (1 + n) / (10 + n))`, so that a short training forgets where it began. Running means and
    variances of batch norms are averaged alike: those of the current weights would not fit the average. Integers, such
    as counts of batches, are the current ones.

    It is not Lightning's `WeightAveraging`, which gives the current weights instead of the average if a training that
    was complete is resumed, and copies the teacher.

    Args:
        network: The network that is trained.
        decay: Largest weight of the old average, from 0 to 1.

    Source: Tarvainen and Valpola, Mean teachers are better role models, https://arxiv.org/abs/1703.01780; the smaller
        weights of the first steps are TensorFlow's (`ExponentialMovingAverage`, `num_updates`).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network, self.decay = network, decay
        self.average = {name: tensor.detach().clone() for name, tensor in self._current()}
        self._updates = 0
        self._seen = 0

    def _current(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each tensor of the network once; a state dict has shared ones under every name of theirs."""
        yield from self.network.named_parameters()
        yield from self.network.named_buffers()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the average to the device of the training."""
        self.average = {name: tensor.to(pl_module.device) for name, tensor in self.average.items()}
        self._seen = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Include the weights after an optimiser step."""
        if trainer.global_step > self._seen:  # else gradients are still accumulated
            self._seen = trainer.global_step
            self._update()

    @torch.no_grad()
    def _update(self) -> None:
        decay = min(self.decay, (1 + self._updates) / (10 + self._updates)) if self._updates > 0 else 0.0
        self._updates += 1
        for name, current in self._current():
            if current.is_floating_point():
                self.average[name].lerp_(current, 1 - decay)
            else:
                self.average[name].copy_(current)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Exchange the weights for the average."""
        self.exchange()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Exchange them back."""
        self.exchange()

    @torch.no_grad()
    def exchange(self) -> None:
        """Exchange parameters and buffers of the network for those of the average."""
        for name, current in self._current():
            kept = current.clone()
            current.copy_(self.average[name])
            self.average[name].copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """The average, for a checkpoint."""
        return {"average": self.average, "updates": self._updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the average of a checkpoint."""
        for name, tensor in state_dict["average"].items():
            self.average[name].copy_(tensor)
        self._updates = state_dict["updates"]
