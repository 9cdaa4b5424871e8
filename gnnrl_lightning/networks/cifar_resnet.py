"""Residual networks for 32 x 32 images, from section 4.2 of He et al., 2015.

Source: Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385. Parameter names are
those of https://github.com/akamaster/pytorch_resnet_cifar10, whose published weights load unchanged.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gnnrl_lightning.checks import counts, shown
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks.layers import initialize

Shortcut = Literal["A", "B"]


class OptionAShortcut(nn.Module):
    r"""Parameter-free shortcut that subsamples the image and pads the channels with zeros (option A).

    An index buffer gives the input channel that each output reads, so that pruning can rewrite it:
    :math:`y_c = x_{\mathrm{index}(c)}` at every `stride`-th pixel, where index `in_channels` reads zeros.

    Args:
        in_channels: Input channels.
        out_channels: Output channels, at least `in_channels`; half of the zeros come before the input's channels, half
            after them.
        stride: Subsampling of rows and columns.

    Shape:
        `(N, in_channels, H, W)` to `(N, out_channels, ceil(H / stride), ceil(W / stride))`.
    """

    index: Tensor

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        before = (out_channels - in_channels) // 2
        index = torch.full((out_channels,), in_channels)
        index[before : before + in_channels] = torch.arange(in_channels)
        self.register_buffer("index", index, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Append one channel of zeros and select the channels of `index`."""
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, 1)).index_select(1, self.index)

    def extra_repr(self) -> str:
        """Return outputs and stride, for `print`."""
        return f"out_channels={len(self.index)}, stride={self.stride}"


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut.

    Args:
        in_channels: Input channels.
        channels: Output channels.
        stride: Stride of the first convolution.
        shortcut: "A" (zeros) or "B" (1 x 1 convolution) where the shape changes.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        if stride == 1 and in_channels == channels:
            self.shortcut = nn.Identity()
        elif shortcut == "A":
            self.shortcut = OptionAShortcut(in_channels, channels, stride)
        else:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in_channels, H, W)` to `(N, channels, ceil(H / stride), ceil(W / stride))`."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class CIFARResNet(nn.Module):
    """Residual network of depth 6n + 2: three stages of n basic blocks with 16, 32 and 64 channels.

    Args:
        blocks: Blocks n of each stage.
        num_classes: Outputs.
        in_channels: Channels of the images.
        shortcut: "A" (parameter-free) or "B" (1 x 1 convolutions) where the shape changes.

    Shape:
        `(N, in_channels, H, W)`, any H and W, to `(N, num_classes)`.
    """

    def __init__(self, blocks: int, num_classes: int = 10, in_channels: int = 3, shortcut: Shortcut = "A") -> None:
        super().__init__()
        counts(blocks=blocks, num_classes=num_classes, in_channels=in_channels)
        if not isinstance(shortcut, str) or shortcut not in ("A", "B"):
            raise UserError(f"shortcut is {shown(shortcut)}: expected 'A' (parameter-free) or 'B' (1 x 1 convolution)")
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, stride=1, shortcut=shortcut)
        self.layer2 = _stage(16, 32, blocks, stride=2, shortcut=shortcut)
        self.layer3 = _stage(32, 64, blocks, stride=2, shortcut=shortcut)
        self.linear = nn.Linear(64, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def _stage(in_channels: int, channels: int, blocks: int, stride: int, shortcut: Shortcut) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1, shortcut) for _ in range(blocks - 1)))


def resnet20(num_classes: int = 10, in_channels: int = 3, shortcut: Shortcut = "A") -> CIFARResNet:
    """ResNet-20 for CIFAR: 0.27 M parameters, 40.6 M MACs at 32 x 32.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        shortcut: "A" (parameter-free, as published) or "B" (1 x 1 convolutions) where the shape changes.
    """
    return CIFARResNet(3, num_classes, in_channels, shortcut)


def resnet32(num_classes: int = 10, in_channels: int = 3, shortcut: Shortcut = "A") -> CIFARResNet:
    """ResNet-32 for CIFAR: 0.46 M parameters, 68.9 M MACs at 32 x 32.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        shortcut: "A" (parameter-free, as published) or "B" (1 x 1 convolutions) where the shape changes.
    """
    return CIFARResNet(5, num_classes, in_channels, shortcut)


def resnet44(num_classes: int = 10, in_channels: int = 3, shortcut: Shortcut = "A") -> CIFARResNet:
    """ResNet-44 for CIFAR: 0.66 M parameters, 97.2 M MACs at 32 x 32.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        shortcut: "A" (parameter-free, as published) or "B" (1 x 1 convolutions) where the shape changes.
    """
    return CIFARResNet(7, num_classes, in_channels, shortcut)


def resnet56(num_classes: int = 10, in_channels: int = 3, shortcut: Shortcut = "A") -> CIFARResNet:
    """ResNet-56 for CIFAR: 0.85 M parameters, 125.5 M MACs at 32 x 32.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        shortcut: "A" (parameter-free, as published) or "B" (1 x 1 convolutions) where the shape changes.
    """
    return CIFARResNet(9, num_classes, in_channels, shortcut)


def resnet110(num_classes: int = 10, in_channels: int = 3, shortcut: Shortcut = "A") -> CIFARResNet:
    """ResNet-110 for CIFAR: 1.73 M parameters, 252.9 M MACs at 32 x 32.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        shortcut: "A" (parameter-free, as published) or "B" (1 x 1 convolutions) where the shape changes.
    """
    return CIFARResNet(18, num_classes, in_channels, shortcut)
