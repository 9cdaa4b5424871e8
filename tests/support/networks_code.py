"""Two convolutions and a linear layer; what a test is about lies between the convolutions, or in what is returned."""

from torch import nn


class Code(nn.Module):
    """The cases override `between`, which gets 8 channels, or `forward`."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3)
        self.head = nn.Linear(6, 2)

    def between(self, x):
        return x

    def forward(self, x):
        return self.head(self.b(self.between(self.a(x))).relu().mean((2, 3)))


class Normed(Code):
    """With a batch norm for what lies between."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(8)


def macs(a=8, b=6):
    """MACs of one example of 6 x 6 pixels at widths of the convolutions."""
    return 16 * 27 * a + 4 * 9 * a * b + 2 * b


class Viewing(nn.Module):
    """It flattens its feature maps with `view`, which those in channels last do not have."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Linear(8 * 16, 4)

    def forward(self, x):
        x = self.second(nn.functional.max_pool2d(self.first(x).relu(), 2)).relu()
        return self.last(x.view(x.size(0), -1))
