"""Test networks with norms over channels, summaries of channels, and weights that are computed from norms."""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from tests.support.networks_zoo import IO, Headed, Pair, case, conv


@case({"a": (6, 1), "b": (5, 1)}, IO)
class InstanceNorms(Pair):
    """PyTorch warns if a norm without parameters reads others than the channels that it holds."""

    def __init__(self):
        super().__init__(6, 6)
        self.norm = nn.InstanceNorm2d(6)

    def features(self, x):
        return self.b(self.norm(self.a(x)).relu())


@case({"stem": (3, 1), "inner": (4, 1)}, IO)
class GroupNorms(Headed):
    """Blocks of two channels on the stream, of three inside: whole blocks go."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.outer, self.head = conv(3, 6), conv(6, 12), conv(12, 6), nn.Linear(6, 10)
        self.one, self.two = nn.GroupNorm(4, 12), nn.GroupNorm(3, 6, affine=False)

    def features(self, x):
        x = self.stem(x)
        return (x + self.two(self.outer(self.one(self.inner(x)).relu()))).relu()


@case({"a": (3, 1), "b": (5, 1)}, IO)
class GroupNormOfGroups(Pair):
    """As many groups as those of the convolution behind it, which go as a whole."""

    def __init__(self):
        super().__init__(6, 9)
        self.norm, self.grouped = nn.GroupNorm(3, 6), conv(6, 9, groups=3)

    def features(self, x):
        return self.b(self.grouped(self.norm(self.a(x)).relu()).relu())


@case({"a": (6, 1), "b": (5, 1)}, IO)
class GroupNormsOfOne(Pair):
    """One channel a group, as in an instance norm; one group of all, as in a layer norm."""

    def __init__(self):
        super().__init__(6, 6)
        self.each, self.all = nn.GroupNorm(6, 6), nn.GroupNorm(1, 5)

    def features(self, x):
        return self.all(self.b(self.each(self.a(x)).relu()))


@case({"a": (2, 1), "b": (5, 1)}, IO)
class GroupNormWithFixedChannels(Pair):
    """The last of three blocks is a channel of the layer and one of the input: it stays."""

    def __init__(self):
        super().__init__(5, 6)
        self.norm = nn.GroupNorm(3, 6)

    def features(self, x):
        return self.b(self.norm(torch.cat([self.a(x), x[:, :1]], 1)).relu())


@case({"embed": (6, 1), "hidden": (9, 1)}, {"x": 5, "head": 10}, ((2, 5, 12),))
class TokenMLP(nn.Module):
    """A block of a transformer without attention: layer norms over the residual stream, with and without weights."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.hidden = nn.Linear(12, 6), nn.LayerNorm(6), nn.Linear(6, 9)
        self.back, self.last, self.head = nn.Linear(9, 6), nn.LayerNorm(6, elementwise_affine=False), nn.Linear(6, 10)

    def forward(self, x):
        x = self.embed(x)
        return self.head(self.last(x + self.back(F.gelu(self.hidden(self.norm(x))))).mean(1))


@case({"embed": (6, 1)}, {"x": 5, "head": 10}, ((2, 5, 12),))
class GatedTokens(nn.Module):
    """A convolution mixes tokens, whose channels lie along its positions."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.mix, self.head = (
            nn.Linear(12, 12),
            nn.LayerNorm(6),
            nn.Conv1d(5, 5, 1),
            nn.Linear(6, 10),
        )

    def forward(self, x):
        gate, x = self.embed(x).chunk(2, -1)
        return self.head((gate * self.mix(self.norm(x))).mean(1))


@case({"embed": (6, 1), "hidden": (9, 1)}, {"x": 5, "head": 10}, ((2, 5, 12),))
class TokenRMS(nn.Module):
    """RMS norms: the module, and one by hand."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.hidden = nn.Linear(12, 6), nn.RMSNorm(6), nn.Linear(6, 9)
        self.scale, self.head = nn.Parameter(torch.rand(9)), nn.Linear(9, 10)

    def forward(self, x):
        x = self.hidden(self.norm(self.embed(x))).relu()
        return self.head(x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.scale)


@case({"stem": (6, 1), "inner": (12, 1), "down": (8, 1)}, IO)
class ConvNeXt(Headed):
    """A block of ConvNeXt, and a layer norm over the first dimension by hand before the next stage."""

    def __init__(self):
        super().__init__()
        self.stem, self.deep, self.norm = conv(3, 6), conv(6, 6, groups=6), nn.LayerNorm(6)
        self.inner, self.outer, self.scale = nn.Linear(6, 12), nn.Linear(12, 6), nn.Parameter(torch.rand(6))
        self.weight, self.down, self.head = nn.Parameter(torch.rand(6, 1, 1)), conv(6, 8, 1), nn.Linear(8, 10)

    def features(self, x):
        x = self.stem(x)
        y = self.outer(F.gelu(self.inner(self.norm(self.deep(x).permute(0, 2, 3, 1)))))
        x = x + (y * self.scale).permute(0, 3, 1, 2)
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        return self.down((x - mean) / (variance + 1e-6).sqrt() * self.weight)


@case({"a": (6, 1), "b": (5, 1)}, IO | {"gate": 1})
class SpatialGate(Pair):
    """CBAM: mean and maximum over the channels."""

    def __init__(self):
        super().__init__(6, 6)
        self.gate = conv(2, 1)

    def features(self, x):
        x = self.a(x)
        summary = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return self.b(x * self.gate(summary).sigmoid())


class ReparametrizedWeights(Headed):
    """Two convolutions and a transposed one with weights that are computed from norms."""

    def __init__(self, computed):
        super().__init__()
        self.a, self.b, self.head = computed(conv(3, 6)), computed(conv(6, 5)), nn.Linear(4, 10)
        self.up = computed(nn.ConvTranspose2d(5, 4, 2, stride=2))

    def features(self, x):
        return self.up(self.b(self.a(x).sigmoid()).sigmoid())


WIDTHS = {"a": (6, 1), "b": (5, 1), "up": (4, 1)}


@case(WIDTHS, IO)
class WeightNorms(ReparametrizedWeights):
    def __init__(self):
        super().__init__(weight_norm)


@case(WIDTHS, IO)
class WeightNormsOfAll(ReparametrizedWeights):
    """One norm of each whole weight."""

    def __init__(self):
        super().__init__(partial(weight_norm, dim=None))


@case(WIDTHS, IO)
class SpectralNorms(ReparametrizedWeights):
    def __init__(self):
        super().__init__(spectral_norm)


class StandardizedConv(nn.Conv2d):
    def forward(self, x):
        weight = F.batch_norm(self.weight.flatten(1)[None], None, None, training=True).reshape(self.weight.shape)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ComputedFilters(Headed):
    """A depthwise convolution, one with two filters for each channel, and one of blocks of channels."""

    def __init__(self, deep, twice, grouped):
        super().__init__()
        self.stem, self.point, self.head = conv(3, 5), conv(5, 6, 1), nn.Linear(4, 10)
        self.deep, self.twice, self.grouped = deep, twice, grouped

    def features(self, x):
        return self.grouped(self.twice(self.point(self.deep(self.stem(x)).relu())).sigmoid())


def filters(kind, computed):
    return (
        computed(kind(5, 5, 3, padding=1, groups=5)),
        computed(kind(6, 12, 3, padding=1, groups=6)),
        computed(kind(12, 4, 3, padding=1, groups=2)),
    )


@case({"stem": (5, 1), "point": (2, 1)}, IO)
class WeightNormsOfFilters(ComputedFilters):
    """The blocks of the last convolution go as a whole, and with them the channels that they read."""

    def __init__(self):
        super().__init__(*filters(nn.Conv2d, weight_norm))


@case({"stem": (5, 1), "point": (2, 1)}, IO)
class SpectralNormsOfFilters(ComputedFilters):
    def __init__(self):
        super().__init__(*filters(nn.Conv2d, spectral_norm))


@case({"stem": (5, 1), "point": (2, 1)}, IO)
class StandardizedFilters(ComputedFilters):
    def __init__(self):
        super().__init__(*filters(StandardizedConv, nn.Identity()))


@case({"stem": (5, 1)}, IO | {"point": 6, "grouped": 4}, reason={"grouped": "conv2d: is part of a grouped"})
class ConstantGroups(ComputedFilters):
    """The code has the number of blocks of the last convolution as a constant."""

    def __init__(self):
        deep, twice, _ = filters(nn.Conv2d, weight_norm)
        super().__init__(deep, twice, HalvesOfTwelve())


@case({"stem": (5, 1), "point": (2, 1)}, IO)
class GroupsOfAModule(ComputedFilters):
    """The module holds their number, and no other size."""

    def __init__(self):
        deep, twice, _ = filters(nn.Conv2d, weight_norm)
        super().__init__(deep, twice, Halves())


class HalvesOfTwelve(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6, 3, 3))

    def forward(self, x):
        return F.conv2d(x, self.weight.tanh(), padding=1, groups=2)


class Halves(HalvesOfTwelve):
    groups = 2

    def forward(self, x):
        return F.conv2d(x, self.weight.tanh(), padding=1, groups=self.groups)


@case({"a": (3, 1), "b": (5, 1)}, IO)
class StandardizedWeights(Pair):
    """Weights with mean 0 and variance 1 per filter, and a group norm: Big Transfer."""

    def __init__(self):
        super().__init__(6, 6)
        self.a, self.norm = StandardizedConv(3, 6, 3, padding=1), nn.GroupNorm(3, 6)
        self.b = StandardizedConv(6, 5, 3, padding=1)

    def features(self, x):
        return self.b(self.norm(self.a(x)).relu())


class PointwiseStandardized(nn.Module):
    """A standardised convolution of one pixel: with a single input a filter has one value, which has no variance."""

    def __init__(self):
        super().__init__()
        self.a, self.b = conv(3, 6), nn.Conv2d(6, 5, 1)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        weight = F.batch_norm(self.b.weight.flatten(1)[None], None, None, training=True).reshape(self.b.weight.shape)
        return self.head(F.conv2d(self.a(x), weight, self.b.bias).mean((2, 3)))


class CenteredConv(nn.Conv2d):
    def forward(self, x):
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) * (variance + 1e-6).rsqrt(), self.bias, padding=self.padding)


@case({"a": (6, 1), "b": (5, 1)}, IO)
class CenteredWeights(Pair):
    """Standardised weights by hand: the mean is subtracted from weights of removed inputs, too."""

    def __init__(self):
        super().__init__(6, 6)
        self.a, self.b = CenteredConv(3, 6, 3, padding=1), CenteredConv(6, 5, 3, padding=1)

    def features(self, x):
        return self.b(self.a(x).relu())


class ScaledConv(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight / self.weight.abs().max(), self.bias, padding=self.padding)


@case({"a": (6, 1), "b": (5, 1)}, IO)
class ScaledWeights(Pair):
    """Weights that are divided by their largest one, as before they are rounded, and maps by theirs."""

    def __init__(self):
        super().__init__(6, 6)
        self.a, self.b = ScaledConv(3, 6, 3, padding=1), ScaledConv(6, 5, 3, padding=1)

    def features(self, x):
        x = self.a(x).relu()
        return self.b(x / x.max())


@case({"a": (4, 1), "b": (5, 1)}, IO)
class Maxout(Pair):
    """The maximum of two neighbouring channels, which go together."""

    def __init__(self):
        super().__init__(8, 4)

    def features(self, x):
        b, c, h, w = x.shape[0], self.a.out_channels, *x.shape[2:]
        return self.b(self.a(x).view(b, c // 2, 2, h, w).amax(2))
