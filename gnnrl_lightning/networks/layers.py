"""Building blocks shared by the networks of this package: weight initialisation, and convolution with batch norm."""

from torch import nn

WIDTHS = 1 / 16, 16
"""Smallest and largest multiple of a network's numbers of channels."""


def initialize(network: nn.Module) -> None:
    """Draw the weights of convolutions and linear layers from He's normal distribution; set biases to zero.

    Source: He et al., 2015, https://arxiv.org/abs/1502.01852, equation 10 (fan-in).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def conv_norm(
    in_channels: int,
    channels: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    activation: nn.Module | None = None,
) -> list[nn.Module]:
    """Return a padded convolution (only the stride reduces the image's size), a batch norm and an activation.

    Args:
        in_channels: Input channels.
        channels: Output channels.
        kernel: Odd kernel size, pixels.
        stride: Stride.
        groups: Groups of the convolution, `in_channels` for a depthwise one.
        activation: Module that follows the batch norm; None for none.
    """
    convolution = nn.Conv2d(
        in_channels, channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    layers: list[nn.Module] = [convolution, nn.BatchNorm2d(channels)]
    return layers if activation is None else [*layers, activation]
