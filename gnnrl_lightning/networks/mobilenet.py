"""MobileNet v1 and v2 for 32 x 32 images: the ImageNet networks with the first strides set to 1.

Sources: Howard et al., 2017, https://arxiv.org/abs/1704.04861; Sandler et al., 2018,
https://arxiv.org/abs/1801.04381.
"""

from torch import Tensor, nn

from gnnrl_lightning.checks import counts, real
from gnnrl_lightning.networks.layers import WIDTHS, conv_norm, initialize

# output channels and stride of each depthwise separable block (table 1 of the paper)
V1_BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)

# expansion, output channels, blocks and stride of the first block of each stage (table 2 of the paper)
V2_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV1(nn.Module):
    """An ordinary convolution followed by thirteen depthwise separable ones.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.

    Shape:
        `(N, in_channels, H, W)`, any H and W, to `(N, num_classes)`.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        counts(num_classes=num_classes, in_channels=in_channels)
        layers = conv_norm(in_channels, 32, 3, activation=nn.ReLU())
        width = 32
        for channels, stride in V1_BLOCKS:
            layers += conv_norm(width, width, 3, stride=stride, groups=width, activation=nn.ReLU())
            layers += conv_norm(width, channels, 1, activation=nn.ReLU())
            width = channels
        self.features = nn.Sequential(*layers)
        self.linear = nn.Linear(width, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        return self.linear(self.features(x).mean((2, 3)))


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and linear bottleneck, with a residual if the shape does not change.

    Args:
        in_channels: Input channels.
        channels: Output channels.
        expansion: Width of the depthwise convolution relative to the input; 1 omits the expanding convolution.
        stride: Stride of the depthwise convolution.
    """

    def __init__(self, in_channels: int, channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = in_channels * expansion
        layers = [] if expansion == 1 else conv_norm(in_channels, width, 1, activation=nn.ReLU6())
        layers += conv_norm(width, width, 3, stride=stride, groups=width, activation=nn.ReLU6())
        layers += conv_norm(width, channels, 1)
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in_channels, H, W)` to `(N, channels, ceil(H / stride), ceil(W / stride))`."""
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileNetV2(nn.Module):
    """Seventeen inverted residuals between two ordinary convolutions.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        width: Factor of the numbers of channels.

    Shape:
        `(N, in_channels, H, W)`, any H and W, to `(N, num_classes)`.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> None:
        super().__init__()
        counts(num_classes=num_classes, in_channels=in_channels)
        real("width", width, *WIDTHS)
        stem, last = round(32 * width), round(1280 * max(width, 1.0))  # as in the paper, the last one never narrows
        layers = conv_norm(in_channels, stem, 3, activation=nn.ReLU6())
        before = stem
        for expansion, full, blocks, stride in V2_STAGES:
            channels = round(full * width)
            for block in range(blocks):
                layers.append(InvertedResidual(before, channels, expansion, stride if block == 0 else 1))
                before = channels
        layers += conv_norm(before, last, 1, activation=nn.ReLU6())
        self.features = nn.Sequential(*layers)
        self.linear = nn.Linear(last, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        return self.linear(self.features(x).mean((2, 3)))


def mobilenet_v1(num_classes: int = 10, in_channels: int = 3) -> MobileNetV1:
    """MobileNet v1 for CIFAR: 3.2 M parameters, 46.4 M MACs at 32 x 32.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
    """
    return MobileNetV1(num_classes, in_channels)


def mobilenet_v2(num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> MobileNetV2:
    """MobileNet v2 for CIFAR: 2.2 M parameters, 88.0 M MACs at 32 x 32.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        width: Factor of the numbers of channels.
    """
    return MobileNetV2(num_classes, in_channels, width)
