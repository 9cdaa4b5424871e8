"""Products of two tensors: which channels they join, and what they cost."""

import pytest
import torch
from torch import nn

import gnnrl_lightning
from tests.support.exactness import check, random_weights
from tests.support.networks_zoo import Pair


class WeightsOfHeads(nn.Module):
    """Weights with a dimension of heads: heads and their widths are separate channels."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Parameter(torch.randn(6, 3, 4)) for _ in range(3))
        self.out = nn.Parameter(torch.randn(3, 4, 6))

    def forward(self, x):
        q, k, v = (torch.einsum("bnc,chd->bhnd", x, weight) for weight in (self.q, self.k, self.v))
        weights = torch.einsum("bhqd,bhkd->bhqk", q, k).softmax(-1)
        return torch.einsum("bhqd,hdc->bqc", torch.einsum("bhqk,bhkd->bhqd", weights, v), self.out)


class Network(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.stem, self.inner, self.head = nn.Linear(5, 6), inner, nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.inner(self.stem(x))).sum(1)


def traced(inner):
    network, x = random_weights(Network(inner)), torch.randn(2, 4, 5, dtype=torch.float64)
    return network, (x,), gnnrl_lightning.trace(network, x)


def test_weights_with_a_dimension_of_heads():
    """Number of heads, width of queries and keys, width of values: each on its own."""
    network, inputs, graph = traced(WeightsOfHeads())
    assert [(group.name, group.width) for group in graph.groups] == [
        ("stem", 6), ("inner", 3), ("inner#2", 4), ("inner#3", 4), ("inner#4", 6)]  # fmt: skip
    for widths in ([4, 2, 3, 2, 6], [6, 3, 2, 4, 2], [6, 2, 4, 4, 3]):
        check(graph, network, inputs, torch.tensor(widths), torch.Generator().manual_seed(0))


class Scored(nn.Module):
    """Scores of heads by `baddbmm`, with a bias."""

    def __init__(self, bias):
        super().__init__()
        self.heads, self.bias = 3, bias
        self.qkv, self.out = nn.Linear(6, 36), nn.Linear(12, 6)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).movedim(1, -2).permute(1, 0, 2, 3, 4).flatten(1, 2)
        bias = self.bias if isinstance(self.bias, nn.Parameter) else torch.ones(self.bias)
        weights = bias.to(q).baddbmm(batch1=q, batch2=k.transpose(1, 2), alpha=0.5).softmax(-1)
        return self.out((weights @ v).unflatten(0, (-1, self.heads)).transpose(1, 2).flatten(2))


@pytest.mark.parametrize(("bias", "expected"), [((1, 4, 4), 3), ((3, 1, 1), 4), (nn.Parameter(torch.rand(3, 1, 1)), 3)])
def test_a_bias_of_scores_has_the_heads_or_is_broadcast(bias, expected):
    """With a constant for each of the three heads, they stay, and their width of four is pruned."""
    network, inputs, graph = traced(Scored(bias))
    assert {group.name: group.width for group in graph.groups}["inner.qkv"] == expected
    one = tuple(item[:1] for item in inputs)  # the bias has no dimension for examples
    check(graph, network, one, (graph.widths + 1) // 2, torch.Generator().manual_seed(0))


class Registers(nn.Module):
    """Learned tokens beside those of patches."""

    def __init__(self):
        super().__init__()
        self.patches, self.registers = nn.Conv2d(3, 6, 1), nn.Parameter(torch.rand(1, 2, 6))
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        x = torch.cat([self.registers.expand(len(x), -1, -1), self.patches(x).flatten(2).transpose(1, 2)], 1)
        return self.head(nn.functional.scaled_dot_product_attention(x, x, x).mean(1))


def test_attention_to_learned_tokens_costs_what_it_does_to_others():
    network, inputs = random_weights(Registers()), (torch.randn(1, 3, 3, 3, dtype=torch.float64),)
    graph = gnnrl_lightning.trace(network, inputs)
    assert [(group.name, group.width) for group in graph.groups] == [("patches", 6)]
    check(graph, network, inputs, torch.tensor([4]), torch.Generator().manual_seed(0))


class Mixed(nn.Module):
    """A constant matrix for each head: their number cannot change."""

    def __init__(self):
        super().__init__()
        self.heads = 3
        self.layer = nn.Linear(6, 12)
        self.out = nn.Linear(12, 6)

    def forward(self, x):
        y = self.layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return self.out((torch.ones(3, 4, 4).to(y) @ y).transpose(1, 2).flatten(2))


def test_values_that_cannot_be_pruned_keep_the_heads():
    _, _, graph = traced(Mixed())
    (group,) = (group for group in graph.frozen if group.name == "inner.layer" and group.width == 3)
    assert group.reason == "is combined with values that cannot be pruned"


class SpectralConvolution(Pair):
    """Low frequencies are multiplied by complex matrices, and written into zeros of a size that the module holds."""

    class Spectral(nn.Module):
        def __init__(self):
            super().__init__()
            self.width = 6
            self.weight = nn.Parameter(torch.randn(6, 6, 3, 2, 2))

        def forward(self, x):
            low = torch.fft.rfft2(x)
            mixed = torch.zeros(len(x), self.width, *low.shape[2:], dtype=low.dtype)
            weight = torch.view_as_complex(self.weight)
            mixed[:, :, :3, :2] = torch.einsum("bixy,ioxy->boxy", low[:, :, :3, :2], weight)
            return torch.fft.irfft2(mixed, s=x.shape[2:])

    def __init__(self):
        super().__init__(6, 6)
        self.spectral = self.Spectral()

    def features(self, x):
        return self.b(self.spectral(self.a(x)).relu())


def test_fourier_modes_are_written_into_zeros_of_an_attribute():
    """`FlopCounterMode` does not count an einsum over one channel, so that two stay."""
    torch.manual_seed(0)
    network, generator = random_weights(SpectralConvolution()), torch.Generator().manual_seed(0)
    inputs = (torch.randn(2, 3, 8, 8, dtype=torch.float64),)
    graph = gnnrl_lightning.trace(network, inputs)
    assert {group.name: group.width for group in graph.groups} == {"a": 6, "spectral": 6, "b": 5}
    assert {group.name for group in graph.frozen} == {"x", "head"}
    small = check(graph, network, inputs, torch.tensor([2, 3, 4]), generator)
    assert small.spectral.width == 3 and small.spectral.weight.shape == (2, 3, 3, 2, 2)


def test_complex_weights_are_tested_in_float64():
    class Complex(SpectralConvolution):
        class Spectral(SpectralConvolution.Spectral):
            def forward(self, x):
                low = torch.fft.rfft2(x)[:, :, :3, :2]
                return torch.fft.irfft2(torch.einsum("bixy,ioxy->boxy", low, self.matrix), s=x.shape[2:])

            def __init__(self):
                super().__init__()
                self.matrix = nn.Parameter(torch.view_as_complex(self.weight.detach().clone()))
                del self.weight

    graph = gnnrl_lightning.trace(Complex(), torch.zeros(1, 3, 8, 8))
    assert {group.name: group.width for group in graph.groups} == {"a": 6, "spectral": 6, "b": 5}
