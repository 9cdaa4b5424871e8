"""Small networks for the other objectives: a perceptron, and an encoder and decoder for images."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from gnnrl_lightning.checks import counts, shown
from gnnrl_lightning.errors import UserError


class Perceptron(nn.Sequential):
    """Linear layers with ReLU between them: `(N, inputs)` to `(N, outputs)`.

    Args:
        inputs: Number of inputs.
        hidden: Widths of the hidden layers.
        outputs: Number of outputs.
    """

    def __init__(self, inputs: int, hidden: tuple[int, ...] = (64, 64), outputs: int = 1) -> None:
        counts(inputs=inputs, outputs=outputs)
        if not isinstance(hidden, (list, tuple)):
            raise UserError(f"hidden is {shown(hidden)}: expected a list of numbers of channels")
        for width in hidden:
            counts(hidden=width)
        sizes = (inputs, *hidden)
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        super().__init__(*layers, nn.Linear(sizes[-1], outputs))


def _convolution(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )


class SmallUNet(nn.Module):
    """A U-Net of one level: `(N, in_channels, H, W)` to `(N, num_classes, H, W)`, H and W even.

    Args:
        in_channels: Channels of the images.
        num_classes: Classes of a pixel.
        width: Channels at full resolution; twice as many at half of it.

    Source: Ronneberger et al., https://arxiv.org/abs/1505.04597, with one level of four.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 2, width: int = 16) -> None:
        super().__init__()
        counts(in_channels=in_channels, num_classes=num_classes, width=width)
        self.encode = nn.Sequential(_convolution(in_channels, width), _convolution(width, width))
        self.inner = nn.Sequential(_convolution(width, 2 * width, stride=2), _convolution(2 * width, 2 * width))
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.decode = _convolution(2 * width, width)
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each pixel."""
        fine = self.encode(x)
        coarse = self.up(self.inner(fine))
        return self.head(self.decode(torch.cat([fine, coarse], 1)))
