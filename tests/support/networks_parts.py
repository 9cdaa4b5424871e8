"""Test networks that cut channels into parts of sizes that a module holds."""

import torch
from torch import nn

from tests.support.networks_zoo import IO, Headed, case, conv


class Branches(nn.Module):
    """A depthwise convolution for each part."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes, self.taps = sizes, [*sizes]
        self.taps.reverse()
        self.branches = nn.ModuleList(conv(n, n, 2 * i + 1, groups=n) for i, n in enumerate(sizes))

    def forward(self, x):
        parts = torch.split(x, self.sizes, 1)
        return torch.cat([branch(part) for branch, part in zip(self.branches, parts, strict=True)], 1)


class Mixed(Headed):
    """The parts of the channels of `a` are those of the input of `b`."""

    def __init__(self, sizes):
        super().__init__()
        self.a, self.mixed, self.b, self.head = conv(3, 10), Branches(sizes), conv(10, 5), nn.Linear(5, 10)

    def features(self, x):
        return self.b(self.mixed(self.a(x)))


@case({"a": (5, 1), "a#2": (5, 1), "b": (5, 1)}, IO)
class EqualParts(Mixed):
    """Each part is pruned on its own."""

    def __init__(self):
        super().__init__([5, 5])


@case({"a": (7, 1), "a#2": (3, 1), "b": (5, 1)}, IO)
class UnequalParts(Mixed):
    """The sizes are a tuple."""

    def __init__(self):
        super().__init__((7, 3))


@case({"stem.0": (7, 1), "stem.0#2": (3, 1), "blocks.1": (6, 1), "blocks.1#2": (4, 1), "b": (5, 1)}, IO)
class SlicedContainers(Headed):
    """Modules that hold sizes lie in containers of which the code takes slices; an activation is held twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv(3, 10), Branches((7, 3)))
        self.blocks = nn.ModuleList([nn.Identity(), conv(10, 10), Branches([6, 4])])
        self.act = self.again = nn.Sigmoid()
        self.b, self.head = conv(10, 5), nn.Linear(5, 10)

    def features(self, x):
        x = self.act(self.stem[1:](self.stem[:1](x)))
        for block in self.blocks[1:]:
            x = block(x)
        return self.b(self.again(x))


@case({"a": (6, 2), "c": (6, 1), "reduce": (4, 1), "b": (5, 1)}, IO)
class SplitByAttribute(Headed):
    """Each branch of a selective kernel reads a half of the channels, whose number the network holds."""

    def __init__(self):
        super().__init__()
        self.channels, self.paths, self.side = 12, 2, 6
        self.a, self.c, self.d = conv(3, 12), conv(6, 6), conv(6, 6, 5)
        self.reduce, self.gates = nn.Linear(6, 4), nn.Linear(4, 12)
        self.b, self.head = conv(6, 5), nn.Linear(5, 10)

    def features(self, x):
        first, second = torch.split(self.a(x), self.channels // self.paths, 1)
        branches = torch.stack([self.c(first), self.d(second)], 1)
        gates = self.gates(self.reduce(branches.sum(1).mean((2, 3))))
        gates = gates.view(len(x), self.paths, gates.shape[1] // self.paths).softmax(1)
        return self.b((branches * gates[..., None, None]).sum(1))
