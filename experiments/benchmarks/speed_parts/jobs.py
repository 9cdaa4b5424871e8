"""The jobs whose candidates are evaluated."""

from __future__ import annotations

from typing import Any

import torch
from gnnrl_lightning.job.compression import Compression
from gnnrl_lightning.job.policy_search import SearchOptions
from torch import Tensor, nn

from gnnrl_lightning.candidates.pruner import FINAL_IMAGES
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import ImageData, ImageFolder, ImageSet, LoadedImages
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.networks.spec import NetworkSpec

BUDGET = Budget(macs=0.5)


class RandomImages(ImageData):
    """Noise in place of photographs: costs do not depend on what is seen.

    Args:
        images: Images of the search split; there are as many more as all calibrations need.
        size: Height and width, pixels.
        classes: Number of classes.
        **kwargs: Arguments of `ImageData`.
    """

    name = "noise"

    def __init__(self, images: int, size: int, classes: int, **kwargs: Any) -> None:
        super().__init__(search_size=images, memory_limit_gib=8.0, **kwargs)
        self.images, self.size, self.classes_of_noise = images, size, classes

    def load(self) -> LoadedImages:
        """Draw them."""
        generator = torch.Generator().manual_seed(0)

        def draw(count: int) -> ImageSet:
            pixels = torch.randint(256, (count, 3, self.size, self.size), dtype=torch.uint8, generator=generator)
            return ImageSet(pixels, torch.arange(count) % self.classes_of_noise)

        images = self.images + FINAL_IMAGES
        return LoadedImages(draw(images), draw(8), tuple(map(str, range(self.classes_of_noise))))


class Chain(nn.Sequential):
    """Convolutions with batch norms, one after the other, and a linear layer.

    Args:
        layers: Convolutions, each of which is a channel group.
        width: Channels of each.
    """

    def __init__(self, layers: int, width: int) -> None:
        parts: list[nn.Module] = []
        for number in range(layers):
            inputs = width if number else 3
            parts += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        super().__init__(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def job(
    network: NetworkSpec, data: ImageData, checkpoint: str | None = None, device: str = "cpu", **search: Any
) -> Compression:
    """A compression to half of the MACs."""
    return Compression(Task(network, data, checkpoint), BUDGET, SearchOptions(**search), device=device)


def random_widths(compression: Compression, count: int) -> Tensor:
    """Candidates `(count, G)` of keep ratios that are uniform on [0, 1], within the budget."""
    dense = compression.graph.widths
    keep = torch.rand(count, len(dense), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return BUDGET.project(compression.graph, dense * keep)


def cifar(folder: str, images: int) -> ImageFolder:
    """CIFAR-10 with a search split of so many images."""
    return ImageFolder(folder, search_size=images, eval_batch_size=250, name="cifar10")
