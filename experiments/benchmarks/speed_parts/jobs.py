"""Jobs of the speed benchmarks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gnnrl_lightning.candidates.options import CandidateOptions
from gnnrl_lightning.candidates.pruner import FINAL_EXAMPLES
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import ImageData, ImageFolder, ImageSet, LoadedImages
from gnnrl_lightning.evaluation.options import ScoringOptions
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.job import Runtime
from gnnrl_lightning.job.options import DeliveryOptions, Options
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.job.trained import Trained, train
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.search.options import SearchOptions

BUDGET = Budget(macs=0.5)


class RandomImages(ImageData):
    """Noise instead of photographs, since costs do not depend on the content of images.

    Args:
        images: Images in the holdout; there are additional ones for calibration.
        size: Height and width, in pixels.
        classes: Number of classes.
        **kwargs: Arguments of `ImageData`.
    """

    name = "noise"

    def __init__(self, images: int, size: int, classes: int, **kwargs: Any) -> None:
        super().__init__(holdout_size=images, memory_limit_gib=8.0, **kwargs)
        self.images, self.size, self.classes_of_noise = images, size, classes

    def load(self) -> LoadedImages:
        """Draw the images."""
        generator = torch.Generator().manual_seed(0)

        def draw(count: int) -> ImageSet:
            pixels = torch.randint(256, (count, 3, self.size, self.size), dtype=torch.uint8, generator=generator)
            return ImageSet(pixels, torch.arange(count) % self.classes_of_noise)

        images = self.images + FINAL_EXAMPLES
        return LoadedImages(draw(images), draw(8), tuple(map(str, range(self.classes_of_noise))))


class Chain(nn.Sequential):
    """A chain of convolutions with batch norms, and a linear layer.

    Args:
        layers: Number of convolutions, each of which is a channel group.
        width: Channels per convolution.
    """

    def __init__(self, layers: int, width: int) -> None:
        parts: list[nn.Module] = []
        for number in range(layers):
            inputs = width if number else 3
            parts += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        super().__init__(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def bf16(
    calibration_images: int,
    evaluations: int = 100,
    racing: bool = True,
    final_images: int | None = None,
) -> Options:
    """Options of a search in bfloat16 without a sensitivity, whose candidates are repaired by their batch norms."""
    return Options(
        CandidateOptions(repair="batch_norm", calibration_examples=calibration_images),
        ScoringOptions("bf16", racing=racing),
        search=SearchOptions(evaluations, None),
        delivery=DeliveryOptions(calibration_examples=final_images or "auto"),
    )


def job(
    network: NetworkSpec, data: ImageData, options: Options, checkpoint: str | None = None, device: str = "cpu"
) -> Trained:
    """A job with half of the MACs; without a checkpoint, the weights are random."""
    task = Task(network.build() if checkpoint is None else network, data, checkpoint)
    return train(check(task, BUDGET, options, Runtime(device=torch.device(device))))


def random_widths(trained: Trained, count: int) -> Tensor:
    """Candidates `(count, G)` with keep ratios uniform on [0, 1], projected onto the budget."""
    dense = trained.job.graph.widths
    keep = torch.rand(count, len(dense), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return trained.job.limits.project(dense * keep)


def cifar(folder: str, images: int) -> ImageFolder:
    """CIFAR-10 with a holdout of a given size."""
    return ImageFolder(folder, holdout_size=images, eval_batch_size=250, name="cifar10")
