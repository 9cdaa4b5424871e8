"""Layers of image networks as repositories write them, each network with its channel groups derived by hand."""

from torch import nn
from torch.nn import functional as F

from tests.support.networks_written_attention import WRITTEN
from tests.support.networks_zoo import IO, Headed, Pair, case, conv

SMALL = ((2, 3, 4, 4),)


@case({"a": (3, 1), "reduce": (6, 1), "b": (5, 1)}, IO, SMALL, zoo=WRITTEN)
class Involution(Pair):
    """Every four channels have a kernel, which a layer makes for each position: they go as a whole, with its rows."""

    def __init__(self):
        super().__init__(12, 12)
        self.channels, self.group_channels, self.kernel_size = 12, 4, 3
        self.groups = self.channels // self.group_channels
        self.reduce, self.span = conv(12, 6, 1), conv(6, self.kernel_size**2 * self.groups, 1)
        self.unfold = nn.Unfold(self.kernel_size, 1, 1, 1)

    def features(self, x):
        x = self.a(x)
        weight = self.span(self.reduce(x).relu())
        b, _, h, w = weight.shape
        weight = weight.view(b, self.groups, self.kernel_size**2, h, w).unsqueeze(2)
        out = self.unfold(x).view(b, self.groups, self.group_channels, self.kernel_size**2, h, w)
        out = (weight * out).sum(dim=3).view(b, self.channels, h, w)
        return self.b(out)


@case({"a": (3, 1), "reduce": (6, 1), "b": (5, 1)}, IO, SMALL, zoo=WRITTEN)
class InvolutionAsWideAsItsInput(Headed):
    """The number of channels with one kernel is computed from what another layer of the same module makes."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = conv(3, 12), conv(12, 5), nn.Linear(5, 10)
        self.reduce, self.span, self.groups = conv(12, 6, 1), conv(6, 27, 1), 3

    def features(self, x):
        x = self.a(x)
        B, C, H, W = x.shape
        k = self.span(self.reduce(x).relu()).view(B, self.groups, 1, 9, H, W)
        u = F.unfold(x, 3, padding=1).view(B, self.groups, C // self.groups, 9, H, W)
        return self.b((u * k).sum(3).view(B, C, H, W))
