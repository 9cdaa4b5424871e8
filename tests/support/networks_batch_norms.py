"""Batch norms that follow a layer, but do not belong to it."""

from torch import nn


class NormedTwice(nn.Module):
    """Its batch norm reads one layer, and what also skips it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.last = nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.second(self.norm(self.first(x)).relu())
        return self.last(self.norm(x) + x)


class Tokens(nn.Module):
    """Its batch norm is over the eight tokens; the linear layer before it has as many channels."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)

    def forward(self, x):
        return self.last(self.norm(self.first(x)).relu())
