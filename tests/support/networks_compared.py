"""Test networks that compare, normalise or gate channels, and that let neighbouring channels act together."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.support.networks_zoo import IO, Pair, case, conv


@case({"a": (6, 1), "b": (5, 1)}, IO)
class UnitVectors(Pair):
    """Every position is divided by its norm over the channels, and then by a norm of another kind."""

    def __init__(self):
        super().__init__(6, 6)

    def features(self, x):
        x = F.normalize(self.a(x), dim=1)
        return self.b(x / (1 + x.norm(p=1, dim=1, keepdim=True)))


@case({"a": (6, 1), "b": (5, 1), "embed": (7, 1)}, {"x": 3, "linear_1": 10})
class CosineClassifier(Pair):
    """Logits are cosines of an embedding and of trained directions."""

    def __init__(self):
        super().__init__(6, 6)
        self.embed, self.head = nn.Linear(5, 7), None
        self.directions = nn.Parameter(torch.randn(10, 7))

    def forward(self, x):
        x = self.embed(self.b(self.a(x)).mean((2, 3)))
        return F.linear(F.normalize(x), F.normalize(self.directions))


@case({"a": (6, 1), "b": (5, 1)}, {"x": 3}, ((2, 3, 8, 8), (2, 3, 8, 8)))
class Twins(Pair):
    """The similarity and the distance of two images."""

    def __init__(self):
        super().__init__(6, 6)
        self.head = None

    def forward(self, x, y):
        x, y = (self.b(self.a(image)).mean((2, 3)) for image in (x, y))
        return F.cosine_similarity(x, y) + F.pairwise_distance(x, y)


@case({"a": (6, 1), "b": (5, 1)}, {"x": 3})
class Distances(Pair):
    """Distances of all positions from one another."""

    def __init__(self):
        super().__init__(6, 6)
        self.head = None

    def forward(self, x):
        rows = self.b(self.a(x)).flatten(2).transpose(1, 2)
        return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")


@case({"a": (6, 1), "b": (5, 1)}, IO)
class LocalResponse(Pair):
    """A norm over neighbouring channels."""

    def __init__(self):
        super().__init__(6, 6)
        self.norm = nn.LocalResponseNorm(3, alpha=0.5, k=1.0)

    def features(self, x):
        return self.b(self.norm(self.a(x)))


@case({"a": (6, 1), "b": (5, 1)}, IO | {"slide": 1})
class EfficientAttention(Pair):
    """A convolution slides over the means of the channels, and gates them."""

    def __init__(self):
        super().__init__(6, 6)
        self.slide = nn.Conv1d(1, 1, 3, padding=1)

    def features(self, x):
        x = self.a(x)
        gate = self.slide(x.mean((2, 3)).unsqueeze(1)).sigmoid()
        return self.b(x * gate.view(x.shape[0], -1, 1, 1).expand_as(x))


@case({"a": (6, 1), "b": (5, 1)}, IO | {"slide": 1})
class TripletAttention(Pair):
    """A convolution slides over the channels and the columns of two summaries of the rows."""

    def __init__(self):
        super().__init__(6, 6)
        self.slide = conv(2, 1)

    def features(self, x):
        x = self.a(x)
        rows = x.permute(0, 2, 1, 3)
        gate = self.slide(torch.cat([rows.amax(1, keepdim=True), rows.mean(1, keepdim=True)], 1)).sigmoid()
        return self.b((rows * gate).permute(0, 2, 1, 3))


@case({"a": (4, 1), "b": (5, 1)}, IO)
class ComplexNumbers(Pair):
    """Two halves are the real and the imaginary part."""

    def __init__(self):
        super().__init__(8, 4)

    def features(self, x):
        return self.b(torch.complex(*self.a(x).chunk(2, 1)).abs())


@case({"a": (3, 1), "b": (5, 1)}, IO)
class GatedHalves(Pair):
    def __init__(self):
        super().__init__(6, 3)

    def features(self, x):
        return self.b(F.glu(self.a(x), 1))


@case({"a": (3, 1), "b": (5, 1)}, IO)
class Maxout(Pair):
    """The larger one of two neighbouring channels."""

    def __init__(self):
        super().__init__(6, 3)

    def features(self, x):
        x = self.a(x)
        b, c, h, w = x.shape
        return self.b(x.view(b, c // 2, 2, h, w).max(2)[0])


@case({"a": (6, 1), "b": (5, 1)}, IO)
class RepeatedKernel(Pair):
    """One fixed kernel blurs every channel."""

    def __init__(self):
        super().__init__(6, 6)
        self.register_buffer("kernel", torch.tensor([1.0, 2.0, 1.0]).outer(torch.tensor([1.0, 2.0, 1.0]))[None, None])

    def features(self, x):
        x = self.a(x)
        channels = x.shape[1]
        return self.b(F.conv2d(x, self.kernel.expand(channels, 1, 3, 3), padding=1, groups=channels))


@case({"a": (4, 1), "b": (5, 1)}, IO | {"einsum": 8})
class GraphConvolution(Pair):
    """The channels of three matrices of neighbours are summed: those of one number go together."""

    def __init__(self):
        super().__init__(12, 4)
        self.neighbours = nn.Parameter(torch.randn(3, 8, 8))

    def features(self, x):
        x = self.a(x)
        n, channels, t, v = x.shape
        return self.b(torch.einsum("nkctv,kvw->nctw", x.view(n, 3, channels // 3, t, v), self.neighbours))


@case({"a": (6, 1), "b": (5, 1)}, IO)
class Neighbours(Pair):
    """Every position reads the nearest ones, by an index that is computed: channels pass."""

    def __init__(self):
        super().__init__(6, 12)

    def features(self, x):
        rows = self.a(x).flatten(2).transpose(1, 2)
        nearest = torch.cdist(rows, rows).topk(3, largest=False)[1]
        near = rows[torch.arange(len(rows))[:, None, None], nearest]
        pairs = torch.cat([near - rows.unsqueeze(2), rows.unsqueeze(2).expand(-1, -1, 3, -1)], 3)
        return self.b(pairs.permute(0, 3, 1, 2))


@case({"a": (6, 1), "b": (5, 1)}, IO | {"route": 4, "conv2d_1": 5})
class MixedKernels(Pair):
    """Every image has its own kernel, mixed of four: the channels of the kernels are one dimension of a product.

    The numbers of kernels and of their outputs are constants of the code.
    """

    def __init__(self):
        super().__init__(6, 5)
        self.route = nn.Linear(6, 4)
        self.kernels = nn.Parameter(torch.randn(4, 5, 6, 3, 3))

    def features(self, x):
        x = self.a(x)
        n, channels, h, w = x.shape
        kernels = self.route(x.mean((2, 3))).sigmoid() @ self.kernels.view(4, -1)
        x = F.conv2d(x.reshape(1, n * channels, h, w), kernels.view(n * 5, channels, 3, 3), padding=1, groups=n)
        return self.b(x.view(n, 5, h, w))
