"""Small test networks of common blocks, each with its channel groups derived by hand.

A case gives its groups, `name -> (width, index sets)`, and the widths of its frozen groups. All inputs are 4 to 8
pixels wide, so tracing and checking a case takes about a second.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F

from gnnrl_lightning.networks.cifar_resnet import resnet20


@dataclass(frozen=True)
class Case:
    """A network, its input, and the expected result of its trace."""

    build: Callable[[], nn.Module]
    groups: dict[str, tuple[int, int]]
    frozen: dict[str, int]
    shapes: tuple[tuple[int, ...], ...] = ((2, 3, 8, 8),)
    reason: dict[str, str] = field(default_factory=dict)
    "Name of a frozen group -> part of the expected reason or operator."

    def inputs(self, dtype=torch.float32, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return tuple(torch.randn(shape, generator=generator, dtype=dtype) for shape in self.shapes)


ZOO: dict[str, Case] = {}

WRITTEN: dict[str, Case] = {}
"""Networks as people write them, whose modules `tests.tracing.test_groups_written` imports."""


def case(groups, frozen, shapes=((2, 3, 8, 8),), reason=None, zoo=ZOO):
    """Register a network class without arguments as a case of its name."""

    def register(network):
        zoo[network.__name__] = Case(network, groups, frozen, shapes, reason or {})
        return network

    return register


def conv(i, o, kernel=3, **options):
    return nn.Conv2d(i, o, kernel, padding=kernel // 2, **options)


class Headed(nn.Module):
    """Features of `self.features(x)`, averaged over space, into a linear layer `self.head`."""

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


class Pair(Headed):
    """Convolution `a` to `middle` channels, convolution `b` from `read` channels to five, head."""

    def __init__(self, middle, read):
        super().__init__()
        self.a, self.b, self.head = conv(3, middle), conv(read, 5), nn.Linear(5, 10)


IO = {"x": 3, "head": 10}
"""Frozen groups of every network here with RGB inputs and ten logits."""

ZOO["ResNet20"] = Case(
    resnet20,
    {"conv1": (16, 1), "layer2.0.conv2": (32, 1), "layer3.0.conv2": (64, 1)}
    | {f"layer{s}.{b}.conv1": (8 * 2**s, 1) for s in (1, 2, 3) for b in (0, 1, 2)},
    {"x": 3, "linear": 10},
)


@case({"a": (6, 1), "b": (8, 1)}, IO)
class Plain(Headed):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b, self.head = conv(3, 6), nn.BatchNorm2d(6), conv(6, 8, stride=2), nn.Linear(8, 10)

    def features(self, x):
        return F.gelu(self.b(F.max_pool2d(F.relu_(self.norm(self.a(x))), 2)))


@case({"stem": (6, 1), "inner": (9, 1)}, IO)
class Residual(Headed):
    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.outer, self.head = conv(3, 6), conv(6, 9), conv(9, 6), nn.Linear(6, 10)

    def features(self, x):
        x = self.stem(x)
        y = self.outer(F.relu(self.inner(x), inplace=True))
        y += x
        return y.sigmoid()


@case({"stem": (6, 1), "one": (4, 1), "two": (5, 1), "squeeze": (7, 1)}, IO)
class DenseConcat(Headed):
    """DenseNet: every layer reads all earlier ones, through a batch norm over the concatenation."""

    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two, self.squeeze = conv(3, 6), conv(6, 4), conv(10, 5), conv(15, 7, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in (6, 10, 15))
        self.head = nn.Linear(7, 10)

    def features(self, x):
        x = self.stem(x)
        x = torch.cat([x, self.one(self.norms[0](x).sigmoid())], 1)
        x = torch.cat([x, self.two(self.norms[1](x).sigmoid())], 1)
        return self.squeeze(self.norms[2](x).sigmoid())


@case({"stem": (5, 1), "point": (6, 1)}, IO)
class DepthwiseMultiplier(Headed):
    def __init__(self):
        super().__init__()
        self.stem, self.deep, self.point = conv(3, 5), conv(5, 10, groups=5), conv(10, 6, 1)
        self.norm, self.head = nn.BatchNorm2d(10), nn.Linear(6, 10)

    def features(self, x):
        return self.point(F.relu6(self.norm(self.deep(self.stem(x)))))


@case({"stem": (4, 2), "grouped": (3, 2)}, IO)
class Grouped(Headed):
    def __init__(self):
        super().__init__()
        self.stem, self.grouped, self.head = conv(3, 8), conv(8, 6, groups=2), nn.Linear(6, 10)
        self.norm = nn.BatchNorm2d(6)

    def features(self, x):
        return F.silu(self.norm(self.grouped(self.stem(x).sigmoid())))


@case({"stem": (4, 2), "inner": (5, 1), "out": (6, 1)}, IO)
class C2f(Headed):
    """C2f of YOLOv8: a chunk's halves, one passed through a bottleneck with a shortcut; all are concatenated."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.outer, self.out = conv(3, 8), conv(4, 5), conv(5, 4), conv(12, 6, 1)
        self.head = nn.Linear(6, 10)

    def features(self, x):
        parts = list(self.stem(x).sigmoid().chunk(2, 1))
        parts.append(parts[-1] + self.outer(F.silu(self.inner(parts[-1]))))
        return self.out(torch.cat(parts, 1))


@case({"stem": (4, 2), "out": (5, 1)}, IO)
class Shuffle(Headed):
    """A channel shuffle with sizes read from the tensor, and a depthwise convolution on the shuffled channels."""

    def __init__(self):
        super().__init__()
        self.stem, self.deep, self.out, self.head = conv(3, 8), conv(8, 8, groups=8), conv(8, 5), nn.Linear(5, 10)

    def features(self, x):
        x = self.stem(x).tanh()
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.out(self.deep(x))


@case({"stem": (4, 2), "grouped": (2, 4), "after": (4, 2), "out": (5, 1)}, IO)
class GroupedShuffle(Headed):
    """ShuffleNet v1: grouped convolutions around `nn.ChannelShuffle`."""

    def __init__(self):
        super().__init__()
        self.stem, self.grouped, self.shuffle = conv(3, 8), conv(8, 8, groups=2), nn.ChannelShuffle(2)
        self.after, self.out, self.head = conv(8, 8, groups=2), conv(8, 5, 1), nn.Linear(5, 10)

    def features(self, x):
        return self.out(F.relu(self.after(self.shuffle(self.grouped(self.stem(x).sigmoid())))))


@case({"stem": (6, 1), "reduce": (3, 1), "out": (5, 1)}, IO)
class SqueezeExcitation(Headed):
    def __init__(self):
        super().__init__()
        self.stem, self.out, self.head = conv(3, 6), conv(6, 5), nn.Linear(5, 10)
        self.reduce, self.expand = conv(6, 3, 1), conv(3, 6, 1)

    def features(self, x):
        x = self.stem(x)
        gate = self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1))))
        return self.out(x * F.hardsigmoid(gate))


@case({"stem": (6, 1)}, IO)
class Reused(Headed):
    """A convolution and a batch norm applied twice: their input and output channels are the same."""

    def __init__(self):
        super().__init__()
        self.stem, self.again, self.norm, self.head = conv(3, 6), conv(6, 6), nn.BatchNorm2d(6), nn.Linear(6, 10)

    def features(self, x):
        x = self.stem(x)
        for _ in range(2):
            x = F.relu(self.norm(self.again(x)))
        return x


@case({"branches.0": (6, 1), "out": (5, 1)}, IO)
class ThreeBranches(Headed):
    def __init__(self):
        super().__init__()
        self.branches = nn.ModuleList(conv(3, 6, kernel) for kernel in (1, 3, 5))
        self.out, self.head = conv(6, 5), nn.Linear(5, 10)

    def features(self, x):
        return self.out(sum(branch(x) for branch in self.branches).sigmoid())


@case({"down": (6, 1), "up": (5, 1), "last": (4, 1)}, IO)
class Transposed(Headed):
    def __init__(self):
        super().__init__()
        self.down, self.norm = conv(3, 6, stride=2), nn.BatchNorm2d(5)
        self.up = nn.ConvTranspose2d(6, 5, 3, stride=2, padding=1, output_padding=1)
        self.last, self.head = nn.ConvTranspose2d(5, 4, 1, bias=False), nn.Linear(4, 10)

    def features(self, x):
        return self.last(self.norm(self.up(self.down(x).sigmoid())).sigmoid())


@case({"a": (4, 1), "b": (3, 1), "out": (5, 1)}, IO)
class SliceWrites(Headed):
    """Writes into slices with bounds read from the tensors."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out, self.head = conv(3, 4), conv(3, 3), conv(7, 5), nn.Linear(5, 10)

    def features(self, x):
        a, b = self.a(x), self.b(x)
        z = x.new_zeros(x.shape[0], a.shape[1] + b.shape[1], *x.shape[2:])
        z[:, : a.shape[1]] = a
        z[:, a.shape[1] :] = b.sigmoid()
        return self.out(z)


@case({"stem": (6, 1), "deep": (5, 1)}, {"x": 3, "early": 4, "late": 10, "feature": 2})
class Outputs(nn.Module):
    """A dictionary with a tuple as output: an auxiliary head, logits, and a feature map, which is frozen."""

    def __init__(self):
        super().__init__()
        self.stem, self.deep, self.feature = conv(3, 6), conv(6, 5), conv(6, 2)
        self.early, self.late = nn.Linear(6, 4), nn.Linear(5, 10)

    def forward(self, x):
        x = self.stem(x).sigmoid()
        logits = self.late(self.deep(x).mean((2, 3)))
        return {"aux": self.early(x.mean((2, 3))), "rest": (logits, self.feature(x))}


@case(
    {"left": (6, 1), "right": (4, 1), "out": (5, 1)},
    {"x": 3, "y": 2, "head": 10},
    ((2, 3, 8, 8), (2, 2, 8, 8), (2, 4)),
)
class Inputs(nn.Module):
    """Two images and a vector as inputs."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.out = conv(3, 6), conv(2, 4), conv(10, 5)
        self.vector, self.head = nn.Linear(4, 5), nn.Linear(5, 10)

    def forward(self, x, y, vector):
        x = self.out(torch.cat([self.left(x), self.right(y)], 1).sigmoid())
        return self.head(x.mean((2, 3)) + self.vector(vector))


@case({"stem": (6, 1), "inner": (7, 1)}, IO)
class LayerScale(Headed):
    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.outer, self.head = conv(3, 6), conv(6, 7), conv(7, 6), nn.Linear(6, 10)
        self.scale = nn.Parameter(torch.rand(6, 1, 1))
        self.register_buffer("shift", torch.rand(1, 7, 1, 1))

    def features(self, x):
        x = self.stem(x)
        return x + self.scale * self.outer((self.inner(x) + self.shift).relu())


@case({"stem": (6, 1), "out": (5, 1)}, IO)
class Slopes(Headed):
    """PReLU with one slope per channel, and with a single slope."""

    def __init__(self):
        super().__init__()
        self.stem, self.out, self.head = conv(3, 6), conv(6, 5), nn.Linear(5, 10)
        self.many, self.one = nn.PReLU(6), nn.PReLU()

    def features(self, x):
        return self.one(self.out(self.many(self.stem(x))))


@case({"stem": (3, 1), "hidden": (9, 1)}, IO, ((2, 3, 4, 4),))
class Flatten(nn.Module):
    """A linear layer that reads each channel of the convolution as four inputs, and a one-dimensional batch norm."""

    def __init__(self):
        super().__init__()
        self.stem, self.hidden, self.head = conv(3, 3, stride=2), nn.Linear(12, 9), nn.Linear(9, 10)
        self.norm = nn.BatchNorm1d(9)

    def forward(self, x):
        x = self.stem(x).sigmoid().flatten(1)
        return self.head(F.dropout(self.norm(self.hidden(x)), 0.5, self.training))
