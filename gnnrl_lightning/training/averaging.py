"""The exponential moving average of a network's weights while it trains."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class MovingAverage(Callback):
    r"""Averages weights and buffers after each optimiser step; validation sees the average.

    After step n, :math:`\bar\theta \leftarrow d \bar\theta + (1 - d) \theta` with
    :math:`d = \min(decay, (1 + n) / (10 + n))`, so that a short training forgets where it began. Running means and
    variances of batch norms are averaged alike: those of the current weights would not fit the average.

    It is not Lightning's `WeightAveraging`, which gives the current weights instead of the average if a training that
    was complete is resumed, and copies the teacher.

    Args:
        network: The network that is trained.
        decay: Largest weight of the old average, from 0 to 1.

    Source: Tarvainen and Valpola, Mean teachers are better role models, https://arxiv.org/abs/1703.01780.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        def step(average: Tensor, current: Tensor, steps: Tensor | int) -> Tensor:
            if not average.is_floating_point():  # a count of batches
                return current
            return average.lerp(current, 1 - min(decay, (1 + int(steps)) / (10 + int(steps))))

        self.network = network
        self.average = AveragedModel(network, avg_fn=step, use_buffers=True)
        self._seen = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the average to the device of the training."""
        self.average.to(pl_module.device)
        self._seen = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Include the weights after an optimiser step."""
        if trainer.global_step == self._seen:  # gradients are still accumulated
            return
        self._seen = trainer.global_step
        self.average.update_parameters(self.network)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Exchange the weights for the average."""
        self.exchange()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Exchange them back."""
        self.exchange()

    @torch.no_grad()
    def exchange(self) -> None:
        """Exchange weights and buffers of the network for those of the average."""
        ours, theirs = self.average.module.state_dict(), self.network.state_dict()
        for name, tensor in theirs.items():
            kept = tensor.clone()
            tensor.copy_(ours[name])
            ours[name].copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """The average, for a checkpoint."""
        return self.average.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the average of a checkpoint."""
        self.average.load_state_dict(state_dict)
