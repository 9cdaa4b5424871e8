"""Test networks that move, sample and select over space, and that read blocks of channels."""

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d, roi_align

from tests.support.networks_zoo import IO, Headed, Pair, case, conv


@case({"a": (4, 1), "b": (6, 1), "c": (5, 1)}, IO)
class Unfold(Headed):
    """A linear layer that reads patches of all channels."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.head = conv(3, 4), nn.Linear(36, 6), conv(6, 5), nn.Linear(5, 10)

    def features(self, x):
        patches = F.unfold(self.a(x).sigmoid(), 3, padding=1).transpose(1, 2)
        b, _, h, w = x.shape
        return self.c(self.b(patches).transpose(1, 2).reshape(b, -1, h, w))


@case({"a": (6, 1), "b": (5, 1)}, IO)
class Folded(Pair):
    """A map from its own patches: overlapping ones add up."""

    def __init__(self):
        super().__init__(6, 6)

    def features(self, x):
        return self.b(F.fold(F.unfold(self.a(x), 2), x.shape[2:], 2))


@case({"a": (3, 1), "b": (5, 1)}, IO)
class PixelShuffle(Pair):
    """Blocks of four channels become pixels, and after a convolution pixels become channels."""

    def __init__(self):
        super().__init__(12, 3)
        self.slope, self.head = nn.PReLU(3), nn.Linear(20, 10)

    def features(self, x):
        return F.pixel_unshuffle(self.b(self.slope(F.pixel_shuffle(self.a(x), 2))), 2)


@case({"a": (3, 1), "b": (5, 1)}, IO)
class ShuffledByHand(Pair):
    """The same with a view and a permutation."""

    def __init__(self):
        super().__init__(12, 3)

    def features(self, x):
        x = self.a(x)
        b, c, h, w = x.shape
        return self.b(x.view(b, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, c // 4, 2 * h, 2 * w))


@case({"start.0": (6, 1), "up": (5, 1)}, {"last": 3}, ((2, 4),))
class Generator(nn.Module):
    """A linear layer makes a map of 6 channels for a transposed convolution: each channel is nine of its outputs."""

    def __init__(self):
        super().__init__()
        self.start = nn.Sequential(nn.Linear(4, 54), nn.BatchNorm1d(54), nn.ReLU(), nn.Unflatten(1, (6, 3, 3)))
        self.up, self.last = nn.ConvTranspose2d(6, 5, 2, stride=2), conv(5, 3)

    def forward(self, z):
        return self.last(self.up(self.start(z)).relu())


@case({"a": (6, 1), "b": (5, 1)}, IO | {"flow": 2}, reason={"flow": "coordinate"})
class Warped(Pair):
    """Features at coordinates that a convolution makes."""

    def __init__(self):
        super().__init__(6, 6)
        self.flow = conv(6, 2)

    def features(self, x):
        x = self.a(x)
        return self.b(F.grid_sample(x, self.flow(x).permute(0, 2, 3, 1).tanh(), align_corners=True))


@case({"a": (6, 1), "b": (5, 1)}, {"x": 3, "head": 10}, ((2, 3, 4, 4, 4),))
class Volumes(nn.Module):
    """Interpolation, maxima and sorted values of volumes."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv3d(3, 6, 3, padding=1), nn.Conv3d(6, 5, 1), nn.Linear(5, 10)

    def forward(self, x):
        x = F.interpolate(self.a(x), scale_factor=2, mode="trilinear")
        x = self.b(x.unfold(2, 2, 2).mean(-1).relu()).flatten(2)
        return self.head(x.topk(8, -1)[0].mean(-1) + x.min(-1).values)


@case({"a": (4, 1), "parts": (4, 1), "b": (5, 1)}, IO)
class Spectrum(Pair):
    """Convolutions of the spectrum of each channel, and a filter of complex numbers for each of them."""

    def __init__(self):
        super().__init__(4, 4)
        self.parts, self.filter = conv(8, 8, 1), nn.Parameter(torch.randn(4, 8, 5, 2))

    def features(self, x):
        x = torch.fft.rfftn(self.a(x), dim=(-2, -1)) * torch.view_as_complex(self.filter)
        x = self.parts(torch.view_as_real(x).permute(0, 1, 4, 2, 3).flatten(1, 2)).relu()
        real, imaginary = x.unflatten(1, (-1, 2)).unbind(2)
        x = torch.fft.irfft2(torch.complex(real, imaginary), s=(8, 8))
        return self.b(torch.fft.ifft(torch.fft.fft(x, dim=2), dim=2).real)


@case({"a": (6, 1), "b": (5, 1)}, {"x": 3, "head": 10}, ((2, 3, 4, 4, 4),))
class Largest(nn.Module):
    """The largest values of volumes and of lines, and a matrix that is transposed twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv3d(3, 6, 3, padding=1), nn.Linear(6, 5), nn.Linear(5, 10)

    def forward(self, x):
        x = F.adaptive_max_pool3d(self.a(x), 2).flatten(2)
        return self.head(F.adaptive_max_pool1d(self.b(x.mT).mT, 1).flatten(1))


@case({"a": (6, 1), "b": (5, 1)}, IO)
class Assigned(Pair):
    """Assignment by a mask and at positions, and values picked by their order."""

    def __init__(self):
        super().__init__(6, 6)

    def features(self, x):
        x = self.a(x).clone()
        x[x > 0.5] = 0.25
        x[:, :, [0, 2]] = 1.0
        return self.b(x * torch.take_along_dim(x, x.argmax(2, keepdim=True), 2))


@case({"a": (6, 1), "b": (5, 1)}, IO)
class Subscripts(Pair):
    """A gate and pairs of pixels as Einstein sums; `rules/test_contractions.py` has sums over channels."""

    def __init__(self):
        super().__init__(6, 6)

    def features(self, x):
        x = self.a(x)
        x = torch.einsum("bchw, bc -> bchw", x, x.amax((2, 3)))
        return self.b(torch.einsum("bchw,bcvw->bchv", x, x))


@case({"stem": (6, 1), "out": (5, 1)}, IO)
class Ordered(Headed):
    """Cumulative sums and sorted values along a row; channels on another dimension than the first."""

    def __init__(self):
        super().__init__()
        self.stem, self.out, self.head = conv(3, 6), nn.Linear(6, 5), nn.Linear(5, 10)

    def features(self, x):
        x = self.stem(x).cumsum(3).sort(2)[0]
        return self.out(x.movedim(1, -1)).movedim(-1, 1)


@case({"a": (6, 1), "b": (5, 1), "deform_conv2d": (7, 1)}, IO | {"shift": 18})
class Deformable(Pair):
    """A convolution at positions that another one shifts."""

    def __init__(self):
        super().__init__(6, 7)
        self.shift, self.kernel = conv(6, 18), nn.Parameter(torch.randn(7, 6, 3, 3))

    def features(self, x):
        x = self.a(x)
        return self.b(deform_conv2d(x, self.shift(x), self.kernel, padding=1))


@case({"a": (6, 1), "b": (5, 1)}, {"x": 3, "head": 10}, ((2, 3, 8, 8), (2, 4)))
class Boxes(Pair):
    """Boxes of each image are cut out, their sides sorted, so that they are boxes for any numbers."""

    def __init__(self):
        super().__init__(6, 6)

    def forward(self, x, boxes):
        corners = boxes.view(-1, 2, 2).abs().cumsum(1).flatten(1)
        first = torch.arange(len(x), dtype=x.dtype)[:, None]
        return self.head(self.b(roi_align(self.a(x), torch.cat([first, corners], 1), 3)).mean((2, 3)))


@case({"a": (6, 1), "b": (5, 1)}, IO)
class Enlarged(Pair):
    """A transposed convolution enlarges each channel by itself."""

    def __init__(self):
        super().__init__(6, 6)
        self.up = nn.ConvTranspose2d(6, 6, 4, stride=2, padding=1, groups=6)

    def features(self, x):
        return self.b(self.up(self.a(x)))


@case({"a": (6, 1), "other": (4, 1), "pairs": (5, 1)}, IO)
class Bilinear(Pair):
    """Each output is a sum over pairs of channels of two layers."""

    def __init__(self):
        super().__init__(6, 6)
        self.other, self.pairs = conv(3, 4), nn.Bilinear(6, 4, 5)
        del self.b

    def forward(self, x):
        return self.head(self.pairs(self.a(x).mean((2, 3)), self.other(x).relu().mean((2, 3))).relu())
