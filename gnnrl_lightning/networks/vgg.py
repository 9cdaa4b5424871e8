"""VGG-16 with batch norm for 32 x 32 images.

Source: Simonyan and Zisserman, 2014, https://arxiv.org/abs/1409.1556, in the form for CIFAR of Li et al.,
Pruning Filters for Efficient ConvNets, 2017, https://arxiv.org/abs/1608.08710: one hidden linear layer of 512
units.
"""

from torch import Tensor, nn

from gnnrl_lightning.checks import counts, real
from gnnrl_lightning.networks.layers import WIDTHS, conv_norm, initialize

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """Thirteen 3 x 3 convolutions in five stages, a max pool after each stage, and two linear layers.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        width: Factor of the numbers of channels.

    Shape:
        `(N, in_channels, H, W)` to `(N, num_classes)`; H and W are at least 32, since five poolings halve them.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> None:
        super().__init__()
        counts(num_classes=num_classes, in_channels=in_channels)
        real("width", width, *WIDTHS)
        layers: list[nn.Module] = []
        for stage in STAGES:
            for channels in (round(width * full) for full in stage):
                layers += conv_norm(in_channels, channels, 3, activation=nn.ReLU())
                in_channels = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(in_channels, in_channels, bias=False),
            nn.BatchNorm1d(in_channels),
            nn.ReLU(),
            nn.Linear(in_channels, num_classes),
        )
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        return self.classifier(self.pool(self.features(x)).flatten(1))


def vgg16_bn(num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> VGG:
    """VGG-16 with batch norm for CIFAR: 15.0 M parameters, 313.5 M MACs at 32 x 32, its smallest size.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        width: Factor of the numbers of channels.
    """
    return VGG(num_classes, in_channels, width)
