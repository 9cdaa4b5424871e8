"""Random small networks built from common blocks, for property tests."""

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

MAX_CHANNELS = 24
"""Maximum size of feature maps, so that examples are cheap."""


class Program(nn.Module):
    """A network that runs a program on a stack of feature maps; all sizes in the code are read from the tensors.

    Args:
        steps: `(operation, i, j, n)`: an operation on the i-th (and j-th) latest map, modulo their number, and a size.
        flat: Whether the head reads the flattened map instead of its spatial mean.
    """

    def __init__(self, steps, flat):
        super().__init__()
        self.layers = nn.ModuleList()
        self.plan = []
        self.widths = [3]
        self._conv(0, 4, "conv")
        for operation, i, j, n in steps:
            getattr(self, f"_{operation}")(*(len(self.widths) - 1 - k % (len(self.widths) - 1) for k in (i, j)), n)
        self.flat = flat
        two = ("add", "mul", "cat", "write")
        read = {i for operation, *inputs in self.plan for i in inputs[: 1 + (operation in two)]}
        self.ends = [i for i in range(1, len(self.widths)) if i not in read]
        self.head = nn.Linear(sum(self.widths[i] for i in self.ends) * (4 if flat else 1), 5)

    def _layer(self, layer):
        self.layers.append(layer)
        return len(self.layers) - 1

    def _emit(self, width, *operation):
        self.plan.append(operation)
        self.widths.append(width)
        return len(self.widths) - 1

    def _same(self, i, j):
        """Return the j-th map with the channel count of the i-th, through a convolution if the counts differ."""
        if self.widths[i] == self.widths[j]:
            return j
        return self._conv(j, 0, self.widths[i])

    def _conv(self, i, _, n):
        n = n if isinstance(n, int) else 4
        layer = self._layer(nn.Conv2d(self.widths[i], n, 1 + 2 * (n % 2), padding=n % 2, bias=n % 3 > 0))
        return self._emit(n, "layer", i, layer)

    def _transposed(self, i, _, n):
        self._emit(n, "layer", i, self._layer(nn.ConvTranspose2d(self.widths[i], n, 3, padding=1)))

    def _linear(self, i, _, n):
        self._emit(n, "linear", i, self._layer(nn.Linear(self.widths[i], n)))

    def _norm(self, i, _, n):
        self._emit(self.widths[i], "layer", i, self._layer(nn.BatchNorm2d(self.widths[i])))

    def _depthwise(self, i, _, n):
        width, multiplier = self.widths[i], 1 + n % 2
        if width * multiplier <= MAX_CHANNELS:
            layer = self._layer(nn.Conv2d(width, width * multiplier, 3, padding=1, groups=width))
            self._emit(width * multiplier, "layer", i, layer)

    def _grouped(self, i, _, n):
        width = self.widths[i]
        for groups in (2 + n % 2, 2, 3):
            if width % groups == 0 and width > groups:
                self._emit(2 * groups, "layer", i, self._layer(nn.Conv2d(width, 2 * groups, 1, groups=groups)))
                return

    def _add(self, i, j, n):
        self._emit(self.widths[i], "add", i, self._same(i, j))

    def _mul(self, i, j, n):
        self._emit(self.widths[i], "mul", i, self._same(i, j))

    def _cat(self, i, j, n):
        if self.widths[i] + self.widths[j] <= MAX_CHANNELS:
            self._emit(self.widths[i] + self.widths[j], "cat", i, j)

    def _write(self, i, j, n):
        if self.widths[i] + self.widths[j] <= MAX_CHANNELS:
            self._emit(self.widths[i] + self.widths[j], "write", i, j)

    def _shuffle(self, i, _, n):
        groups = 2 + n % 2
        if self.widths[i] % groups == 0:
            self._emit(self.widths[i], "shuffle", i, groups)

    def _chunk(self, i, _, n):
        if self.widths[i] % 2 == 0:
            self._emit(self.widths[i] // 2, "chunk", i, 0)
            self._emit(self.widths[i] // 2, "chunk", i, 1)

    def _halve(self, i, _, n):
        if self.widths[i] % 2 == 0:
            self._emit(self.widths[i] // 2, "halve", i)

    def _gate(self, i, _, n):
        """Squeeze-and-excitation."""
        width = self.widths[i]
        layer = nn.Sequential(nn.Linear(width, n), nn.ReLU(), nn.Linear(n, width), nn.Sigmoid())
        self._emit(width, "gate", i, self._layer(layer))

    def _attention(self, i, _, n):
        """Spatial attention: a gate of one channel."""
        self._emit(self.widths[i], "attention", i, self._layer(nn.Conv2d(self.widths[i], 1, 1)))

    def _reuse(self, i, _, n):
        layer = self._layer(nn.Conv2d(self.widths[i], self.widths[i], 3, padding=1))
        first = self._emit(self.widths[i], "layer", i, layer)
        self._emit(self.widths[i], "layer", first, layer)

    def _pad(self, i, _, n):
        if self.widths[i] <= MAX_CHANNELS - 2:
            self._emit(self.widths[i] + 2, "pad", i)

    def forward(self, x):
        maps = [x]
        for operation, i, *more in self.plan:
            value = maps[i] if operation in ("layer", "pad") else maps[i].tanh()
            maps.append(getattr(self, f"run_{operation}")(value, maps, *more))
        x = torch.cat([maps[i] for i in self.ends], 1).sigmoid()
        return self.head(x.flatten(1) if self.flat else x.mean((2, 3)))

    def run_layer(self, x, maps, layer):
        return self.layers[layer](x)

    def run_add(self, x, maps, j):
        return x + maps[j]

    def run_mul(self, x, maps, j):
        return x * maps[j]

    def run_cat(self, x, maps, j):
        return torch.cat([x, maps[j]], 1)

    def run_linear(self, x, maps, layer):
        return self.layers[layer](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def run_write(self, x, maps, j):
        n = x.shape[1]
        z = x.new_zeros(x.shape[0], n + maps[j].shape[1], *x.shape[2:])
        z[:, :n] = x
        z[:, n:] = maps[j]
        return z

    def run_shuffle(self, x, maps, groups):
        b, c, h, w = x.shape
        return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)

    def run_chunk(self, x, maps, which):
        return x.chunk(2, 1)[which]

    def run_halve(self, x, maps):
        half = x.shape[1] // 2
        return x[:, :half] * x[:, half:]

    def run_gate(self, x, maps, layer):
        return x * self.layers[layer](x.mean((2, 3)))[..., None, None]

    def run_attention(self, x, maps, layer):
        return x * self.layers[layer](x).sigmoid()

    def run_pad(self, x, maps):
        return F.pad(x, (0, 0, 0, 0, 0, 2))


OPERATIONS = (
    "conv", "transposed", "linear", "norm", "depthwise", "grouped", "add", "mul", "cat", "write", "shuffle", "chunk",
    "halve", "gate", "attention", "reuse", "pad",
)  # fmt: skip


def programs(max_steps=8):
    """Return a strategy for the arguments of a random `Program`."""
    step = st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 3), st.integers(0, 5), st.integers(2, 7))
    return st.tuples(st.lists(step, min_size=2, max_size=max_steps), st.booleans())
