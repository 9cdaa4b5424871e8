"""More test networks, which a tracer for only convolutions, batch norms and residual sums would not support."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from tests.support.networks_zoo import IO, Headed, Pair, case, conv


@case({"a": (4, 1), "b": (5, 1)}, IO)
class ConcatenatedWithItself(Pair):
    def __init__(self):
        super().__init__(4, 8)
        self.norm = nn.BatchNorm2d(8)

    def features(self, x):
        x = self.a(x)
        return self.b(self.norm(torch.cat([x, x], 1)))


@case({"a": (3, 1), "b": (5, 1)}, IO)
class AddedBackwards(Pair):
    """Channel i is added to channel 5 - i: pairs are pruned together, and the order is mirrored."""

    def __init__(self):
        super().__init__(6, 6)

    def features(self, x):
        x = self.a(x)
        return self.b((x + x.flip(1)).sigmoid())


@case({"a": (3, 1), "c": (2, 1), "c#2": (3, 1), "b": (5, 1)}, IO)
class OverlappingConcatenations(Pair):
    """3 + 5 channels added to 5 + 3 channels: three groups, split at the boundaries of both concatenations."""

    def __init__(self):
        super().__init__(3, 8)
        self.c, self.d, self.e = conv(3, 5), conv(3, 5), conv(3, 3)

    def features(self, x):
        left = torch.cat([self.a(x), self.c(x)], 1)
        return self.b((left + torch.cat([self.d(x), self.e(x)], 1)).sigmoid())


@case({"a": (4, 1), "b": (5, 1)}, IO)
class RepeatedChannels(Pair):
    """The channels repeated as a whole (`repeat`) and each one twice in a row (`repeat_interleave`)."""

    def __init__(self):
        super().__init__(4, 8)
        self.c = conv(8, 5)

    def features(self, x):
        x = self.a(x).sigmoid()
        return self.b(x.repeat(1, 2, 1, 1)) + self.c(x.repeat_interleave(2, 1))


@case({"a": (4, 1), "c": (6, 1), "b": (5, 1)}, IO)
class UnevenFlatten(nn.Module):
    """Two maps of different size, flattened and concatenated."""

    def __init__(self):
        super().__init__()
        self.a, self.c = conv(3, 4), conv(3, 6, stride=4)
        self.b, self.head = nn.Linear(4 * 64 + 6 * 4, 5), nn.Linear(5, 10)

    def forward(self, x):
        x = torch.cat([self.a(x).flatten(1), self.c(x).flatten(1)], 1)
        return self.head(self.b(x.sigmoid()).relu())


@case({"a": (6, 1), "b": (5, 1)}, IO)
class Permutation(Pair):
    """Channels read in the order of an index buffer, and in their own order."""

    def __init__(self):
        super().__init__(6, 6)
        self.c = conv(6, 5)
        self.register_buffer("order", torch.tensor([3, 1, 0, 2, 5, 4]))

    def features(self, x):
        x = self.a(x).sigmoid()
        return self.b(x[:, self.order]) + self.c(x)


@case({"a": (6, 1), "conv2d_1": (5, 1)}, IO)
class KernelSum(Pair):
    """RepVGG: the kernel is the sum of two parameters, scaled per input and output channel."""

    def __init__(self):
        super().__init__(6, 6)
        self.small = conv(6, 5, 1)
        self.outputs, self.inputs = nn.Parameter(torch.rand(5, 1, 1, 1)), nn.Parameter(torch.rand(1, 6, 1, 1))

    def features(self, x):
        weight = self.b.weight + F.pad(self.small.weight, (1, 1, 1, 1)) * self.inputs
        return F.conv2d(self.a(x).sigmoid(), weight * self.outputs, self.b.bias + self.small.bias, padding=1)


@case({"a": (6, 1), "b": (5, 1)}, IO | {"auxiliary": 4})
class TrainingHead(Pair):
    """An auxiliary head and noise in training mode only."""

    def __init__(self):
        super().__init__(6, 6)
        self.auxiliary, self.noise = nn.Linear(6, 4), nn.Parameter(torch.rand(6, 1, 1))
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x):
        x = F.dropout(self.norm(self.a(x)), 0.1, self.training)
        if not self.training:
            return self.head(self.b(x).mean((2, 3)))
        x = x + self.noise * torch.randn_like(x)
        return self.head(self.b(x).mean((2, 3))), self.auxiliary(x.mean((2, 3)))


@case({"a": (6, 1)}, {"x": 3, "b": 4})
class NoneInOutput(Pair):
    def __init__(self):
        super().__init__(6, 6)
        self.b, self.head = conv(6, 4), nn.Identity()

    def forward(self, x):
        return {"logits": self.b(self.a(x).sigmoid()), "auxiliary": None}


@case({"a": (6, 1), "reduce": (4, 1), "b": (5, 1)}, IO)
class SelectiveKernel(Pair):
    """A softmax over stacked branches."""

    def __init__(self):
        super().__init__(6, 6)
        self.c, self.reduce = conv(3, 6, 5), nn.Linear(6, 4)
        self.expand = nn.ModuleList(nn.Linear(4, 6) for _ in range(2))

    def features(self, x):
        branches = torch.stack([self.a(x), self.c(x)], 1)
        z = self.reduce(branches.sum(1).mean((2, 3))).relu()
        gates = torch.stack([expand(z) for expand in self.expand], 1).softmax(1)
        return self.b((branches * gates[..., None, None]).sum(1))


@case({"a": (3, 1), "b": (5, 1), "reduce": (4, 1)}, IO)
class SplitAttention(Pair):
    """A softmax over the two halves of the channels, which go together: both are added."""

    def __init__(self):
        super().__init__(6, 3)
        self.reduce, self.gates = conv(3, 4), conv(4, 6)

    def features(self, x):
        halves = self.a(x).unflatten(1, (2, -1))
        gates = self.gates(self.reduce(halves.sum(1)).relu()).unflatten(1, (2, -1)).softmax(1)
        return self.b((halves * gates.flatten(1, 2).unflatten(1, (2, -1))).sum(1))


@case({"masks": (6, 1), "b": (5, 1)}, IO)
class MasksOfSources(Pair):
    """Each channel is multiplied by a mask for each of two sources."""

    def __init__(self):
        super().__init__(6, 6)
        self.masks = conv(3, 12)

    def features(self, x):
        masks = self.masks(x).sigmoid().unflatten(1, (2, -1))
        first, second = (self.a(x).unsqueeze(1) * masks).unbind(1)
        return self.b(first).relu() + self.b(second)


class Modulated(nn.Module):
    """A convolution whose weight is scaled for each example and normalised, as in StyleGAN2."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 6, 3, 3))

    def forward(self, x, style):
        weight = self.weight * style[:, None, :, None, None]
        weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        return F.conv2d(x.flatten(0, 1)[None], weight.flatten(0, 1), padding=1, groups=len(x))


@case({"a": (6, 1), "c": (5, 1)}, IO, ((1, 3, 8, 8),))
class ScaledWeight(Headed):
    """The scales, which a layer makes, are channels of the input."""

    def __init__(self):
        super().__init__()
        self.a, self.style, self.c, self.head = conv(3, 6), nn.Linear(3, 6), Modulated(), nn.Linear(5, 10)

    def features(self, x):
        return self.c(self.a(x), self.style(x.mean((2, 3))))


@case({"gates": (4, 1)}, IO)
class RecurrentConvolution(Headed):
    """A convolutional LSTM: four chunks of one convolution that reads its own output."""

    def __init__(self):
        super().__init__()
        self.gates, self.head = conv(7, 16), nn.Linear(4, 10)

    def features(self, x):
        hidden = cell = x.new_zeros(x.shape[0], self.gates.out_channels // 4, *x.shape[2:])
        for _ in range(2):
            i, f, g, o = self.gates(torch.cat([x, hidden], 1)).chunk(4, 1)
            cell = cell * f.sigmoid() + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
        return hidden


@case({"stem": (3, 1), "hidden": (9, 1)}, IO, ((2, 3, 4, 4),))
class FlattenLast(nn.Module):
    """Channels are moved last before flattening: they are interleaved along the input of the linear layer."""

    def __init__(self):
        super().__init__()
        self.stem, self.hidden, self.head = conv(3, 3, stride=2), nn.Linear(12, 9), nn.Linear(9, 10)

    def forward(self, x):
        return self.head(self.hidden(self.stem(x).sigmoid().permute(0, 2, 3, 1).flatten(1)).relu())


@case({"stem": (6, 1), "last": (5, 1)}, IO)
class WeightNorm(Headed):
    """A parametrized first convolution: direction and norm of each filter are removed together."""

    def __init__(self):
        super().__init__()
        self.stem, self.last, self.head = weight_norm(conv(3, 6)), conv(6, 5), nn.Linear(5, 10)

    def features(self, x):
        return self.last(self.stem(x).sigmoid())


@case({"conv2d": (6, 1), "conv2d_1": (4, 1)}, IO)
class FunctionalConvolution(Headed):
    """`F.conv2d` on parameters that do not belong to a convolution module."""

    def __init__(self):
        super().__init__()
        self.holder, self.head = conv(3, 6), nn.Linear(4, 10)
        self.weight = nn.Parameter(torch.randn(4, 6, 3, 3) / 7)
        self.bias = nn.Parameter(torch.randn(4))

    def features(self, x):
        x = F.conv2d(x, self.holder.weight, self.holder.bias, padding=1).sigmoid()
        return F.conv2d(x, self.weight, self.bias, padding=1)


@case({"stem": (6, 1)}, IO)
class TiedWeights(Headed):
    """Two modules that share one weight tensor: their output channels are the same."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b, self.head = conv(3, 6), conv(6, 6), conv(6, 6), nn.Linear(6, 10)
        self.b.weight = self.a.weight

    def features(self, x):
        return self.b(self.a(self.stem(x)).sigmoid())
