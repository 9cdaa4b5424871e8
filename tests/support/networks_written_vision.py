"""Layers of image networks as repositories write them, each network with its channel groups derived by hand."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.support.networks_zoo import IO, WRITTEN, Headed, Pair, case, conv

SMALL = ((2, 3, 4, 4),)


@case({"a": (6, 1)}, IO, SMALL, zoo=WRITTEN)
class Unpooled(Headed):
    """Values go back to where the largest ones came from, channel by channel; SegNet."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = conv(3, 6), conv(6, 6), nn.Linear(6, 10)
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def features(self, x):
        x, places = self.pool(self.a(x))
        return self.unpool(self.b(x), places)


@case({"a": (6, 1), "tensordot": (5, 1), "tensordot_1": (4, 1)}, IO, SMALL, zoo=WRITTEN)
class ProductsOverGivenDimensions(nn.Module):
    """Channels are contracted with those of weights, in any place, and of the network's own parameters."""

    def __init__(self):
        super().__init__()
        self.a, self.head = conv(3, 6), nn.Linear(4, 10)
        self.mixed, self.again = nn.Parameter(torch.rand(6, 5)), nn.Parameter(torch.rand(4, 5))

    def forward(self, x):
        x = torch.tensordot(self.a(x).relu(), self.mixed, dims=([1], [0])).tanh()
        return self.head(torch.tensordot(x, self.again, dims=([-1], [1])).mean((1, 2)))


@case({"a": (6, 1), "b": (5, 1)}, IO, SMALL, zoo=WRITTEN)
class SqueezedPixels(Pair):
    """With a single channel left of the last layer, its dimension would go as well."""

    def __init__(self):
        super().__init__(6, 6)

    def forward(self, x):
        return self.head(F.adaptive_avg_pool2d(self.features(x), 1).squeeze())

    def features(self, x):
        return self.b(self.a(x).relu())


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


@case({"a": (3, 2), "b": (5, 1)}, IO, SMALL, zoo=WRITTEN)
class ShuffleAttention(Pair):
    """Groups of channels lie along the examples, whose parameters all groups share: they keep the same channels.

    Those of the two halves of a group differ, in equal counts.
    """

    def __init__(self, channel=24, groups=4):
        super().__init__(channel, channel)
        self.groups = groups
        self.cweight, self.cbias, self.sweight, self.sbias = (
            nn.Parameter(torch.ones(1, channel // (2 * groups), 1, 1)) for _ in range(4)
        )
        self.gn = nn.GroupNorm(channel // (2 * groups), channel // (2 * groups))

    @staticmethod
    def channel_shuffle(x, groups):
        b, _, h, w = x.shape
        return x.reshape(b, groups, -1, h, w).permute(0, 2, 1, 3, 4).reshape(b, -1, h, w)

    def features(self, x):
        x = self.a(x)
        b, _, h, w = x.shape
        x = x.reshape(b * self.groups, -1, h, w)
        x_0, x_1 = x.chunk(2, dim=1)
        xn = self.cweight * F.adaptive_avg_pool2d(x_0, 1) + self.cbias
        xn = x_0 * xn.sigmoid()
        xs = self.sweight * self.gn(x_1) + self.sbias
        xs = x_1 * xs.sigmoid()
        out = torch.cat([xn, xs], dim=1).reshape(b, -1, h, w)
        return self.b(self.channel_shuffle(out, 2))


@case({"a": (6, 2), "b": (5, 1)}, IO, SMALL, zoo=WRITTEN)
class ShuffleAttentionOfTwoGroups(ShuffleAttention):
    """The shuffle takes as many halves as there are groups."""

    def __init__(self):
        super().__init__(groups=2)


@case({"a": (8, 1), "fc": (4, 1), "filters": (8, 1), "kernels": (2, 1), "b": (5, 1)}, IO | {"taps": 3}, zoo=WRITTEN)
class OmniDimensionalConvolution(Pair):
    """Every example has a kernel of its own: examples lie along the channels of a grouped convolution."""

    def __init__(self):
        super().__init__(8, 8)
        self.in_planes, self.out_planes, self.kernel_size = 8, 8, 3
        self.fc, self.channels, self.filters = conv(8, 4, 1, bias=False), conv(4, 8, 1), conv(4, 8, 1)
        self.taps, self.kernels = conv(4, 9, 1), conv(4, 2, 1)
        self.weight = nn.Parameter(torch.randn(2, 8, 8, 3, 3))

    def features(self, x):
        x = self.a(x)
        found = self.fc(x.mean((2, 3), keepdim=True)).relu()
        channels, filters = (layer(found).sigmoid() for layer in (self.channels, self.filters))
        taps = self.taps(found).view(found.size(0), 1, 1, 1, self.kernel_size, self.kernel_size).sigmoid()
        kernels = F.softmax(self.kernels(found).view(found.size(0), -1, 1, 1, 1, 1), dim=1)
        batch_size, _, height, width = x.size()
        x = (x * channels).reshape(1, -1, height, width)
        weight = torch.sum(taps * kernels * self.weight.unsqueeze(dim=0), dim=1)
        weight = weight.view([-1, self.in_planes, self.kernel_size, self.kernel_size])
        x = F.conv2d(x, weight=weight, bias=None, padding=1, groups=batch_size)
        return self.b(x.view(batch_size, self.out_planes, x.size(-2), x.size(-1)) * filters)


@case({"a": (4, 1), "reduce": (3, 1), "b": (5, 1)}, IO | {"gate": 1}, SMALL, zoo=WRITTEN)
class GatedOptionA(Headed):
    """A shortcut of a CIFAR ResNet, option A, whose zeros pass an Einstein sum with a gate for each image."""

    def __init__(self):
        super().__init__()
        self.a, self.reduce, self.b, self.head = conv(3, 4), conv(4, 7, stride=2), conv(7, 5), nn.Linear(5, 10)
        self.gate = nn.Linear(4, 1)

    def features(self, x):
        x = self.a(x).relu()
        y, gate = self.reduce(x), self.gate(x.mean((2, 3))).sigmoid().squeeze(1)
        x = x[:, :, ::2, ::2]
        n, channels, h, w = x.shape
        x = torch.cat([x, x.new_zeros(n, y.shape[1] - channels, h, w)], 1)
        return self.b((y + torch.einsum("nchw,n->nchw", x, gate)).relu())
