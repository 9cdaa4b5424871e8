"""Einstein sums over channels. With a single channel, PyTorch multiplies instead: `FlopCounterMode` counts nothing."""

import pytest
import torch
from torch import nn

import gnnrl_lightning
from tests.support.exactness import check, random_weights
from tests.support.networks_zoo import Pair


class Summed(Pair):
    """An Einstein sum of two operands, then a convolution."""

    def __init__(self, equation, read, operand):
        super().__init__(6, read)
        self.mix = nn.Parameter(torch.rand(7, 6))
        self.equation, self.operand = equation, operand

    def features(self, x):
        x = self.a(x)
        made = torch.einsum(self.equation, x, self.operand(self, x))
        return self.b(made if made.dim() == 4 else x * made[:, None].sigmoid())


@pytest.mark.parametrize(
    ("equation", "read", "operand", "groups"),
    [
        ("bchw,dc->bdhw", 7, lambda network, x: network.mix, {"a": 6, "einsum": 7, "b": 5}),
        ("bchw, dc -> bdhw", 7, lambda network, x: network.mix.sigmoid(), {"a": 6, "b": 5}),
        ("bchw,bchw->bhw", 6, lambda network, x: x.sin() + 2, {"a": 6, "b": 5}),
        ("bchw,dc", 7, lambda network, x: network.mix, {"a": 6, "einsum": 7, "b": 5}),
    ],
)
def test_sums_over_channels(equation, read, operand, groups):
    network = random_weights(Summed(equation, read, operand))
    example = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = gnnrl_lightning.trace(network, example)
    assert {group.name: group.width for group in graph.groups} == groups
    generator = torch.Generator().manual_seed(1)
    for widths in (graph.widths, graph.widths - 1, graph.widths // 2):
        check(graph, network, (example,), widths, generator)


@pytest.mark.parametrize("equation", ["...chw,...chw->...hw", "bchh,bchw->bchw"])
def test_subscripts_without_a_rule(equation):
    network = Summed(equation, 6, lambda network, x: x)
    graph = gnnrl_lightning.trace(network, torch.randn(1, 3, 8, 8))
    reasons = {group.name: group.reason for group in graph.frozen}
    assert "with an ellipsis or with a diagonal" in reasons["a"]
