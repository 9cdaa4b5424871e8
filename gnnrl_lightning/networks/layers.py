"""What the networks of this package share: initial weights, and a convolution with its batch norm."""

from torch import nn


def initialize(network: nn.Module) -> None:
    """Draw the weights of convolutions and linear layers from He's normal distribution, biases zero.

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
    """A convolution that keeps the image's size (but for the stride), its batch norm and an activation.

    Args:
        in_channels: input channels.
        channels: output channels.
        kernel: odd kernel size, pixels.
        stride: stride.
        groups: groups of the convolution, `in_channels` for a depthwise one.
        activation: module that follows the batch norm; None for none.
    """
    convolution = nn.Conv2d(
        in_channels, channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    layers: list[nn.Module] = [convolution, nn.BatchNorm2d(channels)]
    return layers if activation is None else [*layers, activation]
