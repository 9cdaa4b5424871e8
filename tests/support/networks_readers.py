"""Networks for each kind of layer that reads pruned channels (the layer is called `reader`), and correlated images."""

import torch
from torch import nn
from torch.nn import functional as F

from gnnrl_lightning import trace


def correlated(images, channels=3, size=8, seed=0):
    """Return images whose pixels and channels are correlated, as in real images."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(images, channels, size // 2, size // 2, generator=generator)
    mixed = torch.einsum("ij,bjhw->bihw", torch.rand(channels, channels, generator=generator), coarse)
    return F.interpolate(mixed, scale_factor=2.0) + 0.3 * torch.randn(images, channels, size, size, generator=generator)


class Reads(nn.Module):
    """A convolution, ReLU, and a reader, which is the last layer or is followed by others."""

    def __init__(self, reader, width=8, flat=False, tokens=False, norm=False, groups=1):
        super().__init__()
        self.stem, self.reader = nn.Conv2d(3, width, 3, padding=1), reader
        self.norm = nn.BatchNorm2d(reader.weight.shape[0]) if norm else nn.Identity()
        self.flat, self.tokens = flat, tokens

    def forward(self, x):
        x = self.stem(x).relu()
        if self.flat:
            x = x.flatten(1)
        if self.tokens:
            x = x.flatten(2).transpose(1, 2)
        return self.norm(self.reader(x))


READERS = {
    "conv": lambda: Reads(nn.Conv2d(8, 6, 3, padding=1)),
    "strided": lambda: Reads(nn.Conv2d(8, 6, 3, stride=2, padding=2, dilation=2)),
    "no_bias": lambda: Reads(nn.Conv2d(8, 6, 3, padding=1, bias=False)),
    "norm": lambda: Reads(nn.Conv2d(8, 6, 3, padding=1, bias=False), norm=True),
    "grouped": lambda: Reads(nn.Conv2d(8, 6, 3, padding=1, groups=2)),
    "transposed": lambda: Reads(nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1)),
    "flat": lambda: Reads(nn.Linear(8 * 64, 6), flat=True),
    "tokens": lambda: Reads(nn.Linear(8, 6), tokens=True),
}


def traced(name, dtype=torch.float64):
    """Return a network of `READERS` with random statistics, its graph, and images."""
    torch.manual_seed(0)
    network = READERS[name]().to(dtype).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_var.uniform_(0.5, 1.5)
            module.running_mean.normal_()
    images = correlated(60).to(dtype)
    return network, trace(network, images[:1].float() if dtype == torch.float32 else images[:1]), images


def half(graph, network, keep=None):
    """Return a plan that keeps `keep` channels of the first group (by default half of them), by l2."""
    widths = graph.widths.clone()
    widths[0] = widths[0] // 2 if keep is None else keep
    return graph.plan(network, widths)
