"""Small networks with branches that may go entirely."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Residual(nn.Module):
    """Residual blocks as in torchvision: additions and activations in place; a bottleneck in the second one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.block = nn.Sequential(
            nn.Conv2d(8, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
        )
        self.down = nn.Conv2d(8, 10, 1, stride=2)
        self.narrow = nn.Conv2d(8, 5, 1)
        self.spread = nn.Conv2d(5, 7, 3, stride=2, padding=1)
        self.widen = nn.Conv2d(7, 10, 1)
        self.fc = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = self.block(x)
        y += x
        x = F.relu_(y)
        y = self.widen(F.relu(self.spread(F.relu(self.narrow(x)))))
        return self.fc(F.relu(self.down(x) + y).mean((2, 3)))


class Inverted(nn.Module):
    """Inverted residuals with a squeeze, as in MobileNet-v2 and v3: the first without, the second with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.first = self._inverted(6, 12, 8, 2)
        self.second = self._inverted(8, 16, 8, 1)
        self.squeeze, self.excite = nn.Conv2d(8, 3, 1), nn.Conv2d(3, 8, 1)
        self.fc = nn.Linear(8, 4)

    @staticmethod
    def _inverted(given: int, inner: int, made: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(given, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU6(),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU6(),
            nn.Conv2d(inner, made, 1, bias=False),
            nn.BatchNorm2d(made),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(F.relu(self.stem(x)))
        x = x + self.second(x)
        x = x * self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))).sigmoid()
        return self.fc(x.mean((2, 3)))


class Inception(nn.Module):
    """Parallel branches that are concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.a = nn.Conv2d(8, 6, 1)
        self.b1, self.b2 = nn.Conv2d(8, 5, 1), nn.Conv2d(5, 7, 3, padding=1)
        self.c1 = nn.Sequential(nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.c2 = nn.Sequential(
            nn.Conv2d(4, 6, 5, padding="same", bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True)
        )
        self.d = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(8, 3, 1))
        self.head, self.fc = nn.Conv2d(22, 9, 3, stride=2, padding=1), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = torch.cat([self.a(x), F.relu(self.b2(F.relu(self.b1(x)))), self.c2(self.c1(x)), self.d(x)], 1)
        return self.fc(F.relu(self.head(F.relu(x))).mean((2, 3)))


class DenseBlock(nn.Module):
    """Layers whose outputs are concatenated to their inputs, as in DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.layers = nn.ModuleList(self._layer(6 + 4 * number) for number in range(2))
        self.bn, self.fc = nn.BatchNorm2d(14), nn.Linear(14, 4)

    @staticmethod
    def _layer(given: int) -> nn.Sequential:
        return nn.Sequential(
            nn.BatchNorm2d(given),
            nn.ReLU(),
            nn.Conv2d(given, 8, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 4, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.fc(F.relu(self.bn(x)).mean((2, 3)))


class Decoder(nn.Module):
    """A skip connection around transposed convolutions, and one around linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.down = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1)
        self.hidden, self.out, self.fc = nn.Linear(6, 12), nn.Linear(12, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = (x + self.up(F.relu(self.down(x)))).mean((2, 3))
        return self.fc(x + self.out(F.gelu(self.hidden(x))))


class Chain(nn.Module):
    """No branch may go; the code of the second layer needs a channel, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1)
        self.third, self.fc = nn.Conv2d(5, 4, 1), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = x + self.third(F.max_pool2d(self.second(x), 3, 1, 1))
        return self.fc(x.mean((2, 3)))


BRANCHES: dict[type[nn.Module], tuple[set[str], dict[str, set[str]]]] = {
    Residual: ({"block.0", "narrow", "spread"}, {"narrow": {"spread"}, "spread": {"narrow"}}),
    Inverted: ({"second.0", "squeeze"}, {}),
    Inception: ({"a", "b1", "b2", "c1.0", "c2.0"}, {"b1": {"b2"}, "b2": {"b1"}, "c1.0": {"c2.0"}, "c2.0": {"c1.0"}}),
    DenseBlock: (
        {"layers.0.2", "layers.0.5", "layers.1.2", "layers.1.5"},
        {
            "layers.0.2": {"layers.0.5"},
            "layers.0.5": {"layers.0.2"},
            "layers.1.2": {"layers.1.5"},
            "layers.1.5": {"layers.1.2"},
        },
    ),
    Decoder: ({"down", "hidden"}, {}),
}
"""Network -> groups that may go by name, and for each of them those that are of no use without it."""
