"""More networks for the tests: what breaks a tracer that knows convolutions, batch norms and residual sums only."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.networks_zoo import IO, Headed, case, conv


class Pair(Headed):
    """Convolution `a` to `middle` channels, convolution `b` from `read` channels to five, head."""

    def __init__(self, middle, read):
        super().__init__()
        self.a, self.b, self.head = conv(3, middle), conv(read, 5), nn.Linear(5, 10)


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
    """Channel i meets channel 5 - i: pairs go together, and the order is mirrored."""

    def __init__(self):
        super().__init__(6, 6)

    def features(self, x):
        x = self.a(x)
        return self.b((x + x.flip(1)).sigmoid())


@case({"a": (3, 1), "c": (2, 1), "c#2": (3, 1), "b": (5, 1)}, IO)
class OverlappingConcatenations(Pair):
    """3 + 5 channels added to 5 + 3 channels: three groups, cut where either concatenation is."""

    def __init__(self):
        super().__init__(3, 8)
        self.c, self.d, self.e = conv(3, 5), conv(3, 5), conv(3, 3)

    def features(self, x):
        left = torch.cat([self.a(x), self.c(x)], 1)
        return self.b((left + torch.cat([self.d(x), self.e(x)], 1)).sigmoid())


@case({"a": (4, 1), "b": (5, 1)}, IO)
class RepeatedChannels(Pair):
    """The same channels one after the other and each twice in a row."""

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
    """Channels in the order of an index buffer, as they are, and back."""

    def __init__(self):
        super().__init__(6, 6)
        self.c = conv(6, 5)
        self.register_buffer("order", torch.tensor([3, 1, 0, 2, 5, 4]))

    def features(self, x):
        x = self.a(x).sigmoid()
        return self.b(x[:, self.order]) + self.c(x)


@case({"b": (5, 1)}, IO | {"a": 6}, reason={"a": "index"})
class ConstantPermutation(Pair):
    """The order is a constant of the code: nothing could rewrite it."""

    def __init__(self):
        super().__init__(6, 6)

    def features(self, x):
        return self.b(self.a(x).sigmoid()[:, [3, 1, 0, 2, 5, 4]])


@case({"b": (5, 1)}, IO | {"a": 6}, reason={"a": "fft"})
class Fourier(Pair):
    def __init__(self):
        super().__init__(6, 6)

    def features(self, x):
        return self.b(torch.fft.fft(self.a(x), dim=1).real)


@case({"a": (6, 1), "conv2d_1": (5, 1)}, IO)
class KernelSum(Pair):
    """RepVGG: the kernel is the sum of two parameters, scaled for each input and output channel."""

    def __init__(self):
        super().__init__(6, 6)
        self.small = conv(6, 5, 1)
        self.outputs, self.inputs = nn.Parameter(torch.rand(5, 1, 1, 1)), nn.Parameter(torch.rand(1, 6, 1, 1))

    def features(self, x):
        weight = self.b.weight + F.pad(self.small.weight, (1, 1, 1, 1)) * self.inputs
        return F.conv2d(self.a(x).sigmoid(), weight * self.outputs, self.b.bias + self.small.bias, padding=1)


@case({"b": (5, 1)}, IO | {"a": 6})
class ChunkTwice(Pair):
    """Half of the channels is as wide as two quarters: no such tie can be kept, and only `a` pays for it."""

    def __init__(self):
        super().__init__(8, 2)
        self.c = conv(4, 5)

    def features(self, x):
        u, v = self.a(x).sigmoid().chunk(2, 1)
        p, q = v.chunk(2, 1)
        return self.b(p * q) + self.c(u)


@case({"b": (5, 1)}, IO | {"a": 6})
class PlainTensor(Pair):
    """A constant that is no buffer cannot shrink."""

    def __init__(self):
        super().__init__(6, 6)
        self.scale = torch.rand(1, 6, 1, 1)

    def features(self, x):
        return self.b(self.a(x) * self.scale.to(x))


@case({"a": (6, 1), "b": (5, 1)}, IO | {"auxiliary": 4})
class TrainingHead(Pair):
    """An auxiliary head and noise that only training sees."""

    def __init__(self):
        super().__init__(6, 6)
        self.auxiliary, self.noise = nn.Linear(6, 4), nn.Parameter(torch.rand(6, 1, 1))

    def forward(self, x):
        x = self.a(x)
        if not self.training:
            return self.head(self.b(x).mean((2, 3)))
        x = x + self.noise
        return self.head(self.b(x).mean((2, 3))), self.auxiliary(x.mean((2, 3)))


@case({"b": (6, 1), "c": (5, 1)}, IO | {"a": 4})
class Unfold(Headed):
    """Patches of all channels as inputs of a linear layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.head = conv(3, 4), nn.Linear(36, 6), conv(6, 5), nn.Linear(5, 10)

    def features(self, x):
        patches = F.unfold(self.a(x).sigmoid(), 3, padding=1).transpose(1, 2)
        b, _, h, w = x.shape
        return self.c(self.b(patches).transpose(1, 2).reshape(b, -1, h, w))


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


@case({"hidden": (9, 1)}, {"x": 5, "embed": 6, "head": 10}, ((2, 5, 12),))
class TokenMLP(nn.Module):
    """The stream of a transformer block is frozen by its layer norm, the width of its MLP is not."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.hidden = nn.Linear(12, 6), nn.LayerNorm(6), nn.Linear(6, 9)
        self.back, self.head = nn.Linear(9, 6), nn.Linear(6, 10)

    def forward(self, x):
        x = self.embed(x)
        return self.head((x + self.back(F.gelu(self.hidden(self.norm(x))))).mean(1))
