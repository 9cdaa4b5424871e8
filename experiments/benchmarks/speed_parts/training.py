"""Images a second of fine-tuning a pruned network, and of the same in a plain PyTorch loop."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import ImageFolder, ImageSet
from gnnrl_lightning.job.deciding import decided_training
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.speed.inference import PRECISIONS
from gnnrl_lightning.speed.training import named
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.training.train import quiet_trainer
from speed_parts.machine import matmul_peak

WARM_UP = 5
"""Steps before the clock starts."""

WORKERS = 2
"""Processes that load the images of the plain loop."""

PASSES = 3
"""Passes in a step, in units of a forward pass: forward, gradients of activations, gradients of weights."""


def measure(
    network: str, folder: str, images: int, multiples: tuple[int, ...], steps: int, rows: int | None = None
) -> dict[str, Any]:
    """Train a network that is pruned to half of its MACs, all groups by the same ratio, in both ways.

    Args:
        network: One of `gnnrl_lightning.networks`.
        folder: Folder of 32 x 32 images.
        images: Images in the holdout.
        multiples: Multiples of channels, of which the first is that of the plain loop's network.
        steps: Timed steps.
        rows: Rows of the matrices whose product defines the peak rate; None: enough to keep the device busy.

    Returns:
        Images a second of the plain loop (`plain`), and for each multiple images a second, their ratio to it,
        precision, memory format, and the share of the peak rate.
    """
    data = ImageFolder(folder, name="cifar10", holdout_size=images, pad=4, flip=True)
    task = Task(NetworkSpec(network), data)
    dense = task.build()
    graph = task.trace(dense)
    found: dict[str, Any] = {"network": network, "steps": steps}
    for multiple in multiples:
        limits = Budget(macs=0.5, channel_multiple=multiple).on(graph)
        widths = limits.project(graph.widths)
        smaller = graph.plan(dense, widths).apply(dense)
        macs = int(graph.cost.macs(widths))
        if "plain" not in found:
            found["plain"] = round(plain(smaller, data, steps), 1)
        options, tuned = decided_training(TrainingOptions(epochs=1, precision="auto"), task, smaller)
        rate = ours(smaller, task, options, steps)
        peak = matmul_peak(PRECISIONS[options.precision], torch.device("cpu"), rows)
        found[f"multiples_of_{multiple}"] = {
            "images_per_s": round(rate, 1),
            "ratio": round(rate / found["plain"], 2),
            "precision": options.precision,
            "channels_last": options.channels_last,
            "step_ms": {named(*way): round(value, 3) for way, value in tuned.milliseconds.items()},
            "share_of_peak": round(PASSES * macs * rate / peak, 3),
        }
    return found


class Clock(Callback):
    """Notes when the steps after the first ones begin and end."""

    def __init__(self) -> None:
        self.start = self.end = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the time."""
        self.end = time.perf_counter()
        if trainer.global_step == WARM_UP:
            self.start = self.end


def ours(network: nn.Module, task: Task, options: TrainingOptions, steps: int) -> float:
    """Images a second of `Task.train`."""
    clock, count = Clock(), WARM_UP + steps
    trainer = partial(quiet_trainer, accelerator="cpu", callbacks=[clock], max_steps=count)
    task.train(network, replace(options, epochs=count), lambda **flags: trainer(**{**flags, "limit_val_batches": 0}))
    return steps * task.data.batch_size / (clock.end - clock.start)


class Photographs(Dataset):
    """Training images as PIL's, as in an ordinary image folder, augmented and normalised by torchvision."""

    def __init__(self, data: ImageFolder) -> None:
        assert isinstance(data.train, ImageSet)
        self.images, self.targets = data.train.inputs, data.train.targets
        self.transform = v2.Compose(
            [
                v2.RandomCrop(32, padding=4),
                v2.RandomHorizontalFlip(),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(list(data.mean), list(data.std)),
            ]
        )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        image = Image.fromarray(self.images[number].permute(1, 2, 0).numpy())
        return self.transform(image), int(self.targets[number])


def plain(network: nn.Module, data: ImageFolder, steps: int) -> float:
    """Images a second of a loop as in a tutorial: float32, channels first, images loaded by two processes."""
    loader = DataLoader(Photographs(data), data.batch_size, shuffle=True, num_workers=WORKERS)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    network.train()
    start = 0.0
    epochs = itertools.chain.from_iterable(itertools.repeat(loader))
    for number, (images, targets) in enumerate(itertools.islice(epochs, WARM_UP + steps)):
        if number == WARM_UP:
            start = time.perf_counter()
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), targets).backward()
        optimizer.step()
    return steps * data.batch_size / (time.perf_counter() - start)
