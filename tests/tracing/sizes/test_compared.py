"""Numbers of channels with which modules compare what they get."""

import torch
from torch import nn

import gnnrl_lightning
from tests.support.exactness import check, random_weights
from tests.support.networks_zoo import Pair


class Comparing(nn.Module):
    """A layer that refuses another number of channels; a further attribute has this value by chance."""

    def __init__(self):
        super().__init__()
        self.channels, self.side = 6, 6
        self.layer = nn.Conv2d(6, 5, 1)

    def forward(self, x):
        if x.shape[1] != self.channels:
            raise ValueError(f"expected {self.channels} channels")
        return self.layer(x)


class Compared(Pair):
    def __init__(self):
        super().__init__(6, 5)
        self.inner = Comparing()

    def features(self, x):
        return self.b(self.inner(self.a(x).relu()).relu())


def test_a_number_that_the_code_compares_follows():
    network, x = random_weights(Compared()), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    graph = gnnrl_lightning.trace(network, x)
    assert [(group.name, group.width) for group in graph.groups] == [("a", 6), ("inner.layer", 5), ("b", 5)]
    pruned = check(graph, network, (x,), torch.tensor([4, 3, 2]), torch.Generator().manual_seed(0))
    assert (pruned.inner.channels, pruned.inner.side) == (4, 6)
