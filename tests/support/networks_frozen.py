"""Test networks with channels that cannot be pruned, and the expected reasons."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.support.networks_zoo import IO, Headed, Pair, case, conv


@case({"out": (5, 1)}, IO | {"stem": 6}, reason={"stem": "masked_scatter"})
class NoRule(Headed):
    """An operator without a rule freezes its operands only."""

    def __init__(self):
        super().__init__()
        self.stem, self.out, self.head = conv(3, 6), conv(6, 5), nn.Linear(5, 10)

    def features(self, x):
        x = self.stem(x).sigmoid()
        return self.out(x.masked_scatter(x > 0.5, x))


@case({"out": (5, 1)}, IO | {"stem": 8}, reason={"stem": "does not follow"})
class ConstantView(Headed):
    """A channel shuffle with a constant size in the code, which only running the network reveals."""

    def __init__(self):
        super().__init__()
        self.stem, self.out, self.head = conv(3, 8), conv(8, 5), nn.Linear(5, 10)

    def features(self, x):
        b, _, h, w = x.shape
        x = self.stem(x).sigmoid().view(b, 2, 4, h, w).transpose(1, 2).flatten(1, 2)
        return self.out(x)


@case({"out": (5, 1)}, IO | {"a": 4, "b": 3})
class ConstantSliceWrites(Headed):
    """Writes into slices with constant bounds in the code: these channels are frozen."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out, self.head = conv(3, 4), conv(3, 3), conv(7, 5), nn.Linear(5, 10)

    def features(self, x):
        z = x.new_zeros(x.shape[0], 7, *x.shape[2:])
        z[:, :4] = self.a(x)
        z[:, 4:] = self.b(x)
        return self.out(z)


@case({"stem": (4, 1), "late": (5, 1)}, IO | {"wide": 4})
class ZeroPadding(Headed):
    """Option A by `F.pad`: the number of channels added to zeros, four, is a constant in the code."""

    def __init__(self):
        super().__init__()
        self.stem, self.wide, self.late, self.head = conv(3, 4), conv(4, 8), conv(8, 5), nn.Linear(5, 10)

    def features(self, x):
        x = self.stem(x).sigmoid()
        return self.late((F.pad(x, (0, 0, 0, 0, 2, 2)) + self.wide(x)).sigmoid())


@case({"b": (5, 1)}, IO | {"a": 6}, reason={"a": "index"})
class ConstantPermutation(Pair):
    """The order is a constant in the code, which pruning cannot rewrite."""

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


@case({"b": (5, 1)}, IO | {"a": 6})
class ChunkTwice(Pair):
    """Half of the channels is tied to two quarters, which is not supported: only `a` is frozen."""

    def __init__(self):
        super().__init__(8, 2)
        self.c = conv(4, 5)

    def features(self, x):
        u, v = self.a(x).sigmoid().chunk(2, 1)
        p, q = v.chunk(2, 1)
        return self.b(p * q) + self.c(u)


@case({"b": (5, 1)}, IO | {"a": 6})
class PlainTensor(Pair):
    """A constant tensor that is not a buffer cannot be pruned."""

    def __init__(self):
        super().__init__(6, 6)
        self.scale = torch.rand(1, 6, 1, 1)

    def features(self, x):
        return self.b(self.a(x) * self.scale.to(x))


@case({"stem": (6, 1), "out": (5, 1)}, IO | {"gate": 1})
class AttentionGate(Headed):
    """One channel that scales all others: only that channel is frozen."""

    def __init__(self):
        super().__init__()
        self.stem, self.gate, self.out, self.head = conv(3, 6), conv(6, 1, 1), conv(6, 5), nn.Linear(5, 10)

    def features(self, x):
        x = self.stem(x)
        return self.out(x * self.gate(x).sigmoid())


@case({"b": (5, 1)}, IO | {"a": 2}, reason={"a": "does not follow"})
class ConstantGroupNorm(Pair):
    """The number of groups is a constant in the code."""

    def __init__(self):
        super().__init__(6, 6)

    def features(self, x):
        return self.b(F.group_norm(self.a(x), 2))


@case({}, {"x": 5, "embed": 6, "rnn": 4, "head": 10}, ((2, 5, 12),), {"embed": "projected states"})
class ProjectedStates(nn.Module):
    """An LSTM whose states are projected: the projection is as wide as what it is added to by the next step."""

    def __init__(self):
        super().__init__()
        self.embed, self.rnn, self.head = nn.Linear(12, 6), nn.LSTM(6, 8, proj_size=4), nn.Linear(4, 10)

    def forward(self, x):
        return self.head(self.rnn(self.embed(x))[0].mean(1))


@case({"fc": (5, 1)}, {"x": 5, "embed": 6, "rnn": 1, "cell": 1, "head": 10}, ((2, 5, 12),), {"embed": "single"})
class SingleUnit(nn.Module):
    """A recurrent layer and a cell of one unit each."""

    def __init__(self):
        super().__init__()
        self.embed, self.rnn, self.cell = nn.Linear(12, 6), nn.LSTM(6, 1, batch_first=True), nn.GRUCell(6, 1)
        self.fc, self.head = nn.Linear(1, 5), nn.Linear(5, 10)

    def forward(self, x):
        x = self.embed(x)
        return self.head(self.fc(self.rnn(x)[0].mean(1) + self.cell(x[:, 0])).relu())


@case({"stem": (6, 1), "out": (5, 1)}, IO | {"a": 4, "up": 6}, reason={"a": "conv_transpose2d", "up": "grouped"})
class GroupedTransposed(Headed):
    """A grouped transposed convolution; the layers before and after it can be pruned."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.out, self.head = conv(3, 6), conv(6, 4), conv(6, 5), nn.Linear(5, 10)
        self.up = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2)

    def features(self, x):
        return self.out(self.up(self.a(self.stem(x).sigmoid()).sigmoid()).sigmoid())


@case({"b": (5, 1)}, IO | {"a": 6}, reason={"a": "einsum: is summed over"})
class Einsum(Pair):
    """A subscript that is on the left only is summed over before the product."""

    def __init__(self):
        super().__init__(6, 6)

    def features(self, x):
        x = self.a(x).sigmoid()
        return self.b(torch.einsum("bchw,bdhw->bchw", x, x))


@case({"b": (5, 1)}, IO | {"a": 8}, reason={"a": "away from the masked"})
class Interleave(Pair):
    """Neighbouring channels are swapped in pairs: half of the channels would form other pairs."""

    def __init__(self):
        super().__init__(8, 8)

    def features(self, x):
        b, c, h, w = x.shape[0], self.a.out_channels, *x.shape[2:]
        return self.b(self.a(x).sigmoid().view(b, c // 2, 2, h, w).transpose(1, 2).reshape(b, c, h, w))
