"""Parts of tensors, tensors that are put together, and zeros beside channels."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gnnrl_lightning
from tests.support.exactness import check, random_weights


class Tokens(nn.Module):
    """Registers between a class token and the others, whose mean is read beside the first one."""

    def __init__(self):
        super().__init__()
        self.embed, self.first = nn.Linear(4, 6), nn.Parameter(torch.rand(1, 1, 6))
        self.registers, self.positions = nn.Parameter(torch.rand(1, 2, 6)), nn.Parameter(torch.rand(1, 6, 6))
        self.layer, self.head = nn.Linear(12, 7), nn.Linear(7, 3)

    def forward(self, x):
        x = torch.cat([self.first.expand(len(x), -1, -1), self.embed(x)], 1) + self.positions
        x = torch.cat([x[:, :1], self.registers.expand(len(x), -1, -1), x[:, 1:]], 1)
        rest = x[:, 3:]
        return self.head(self.layer(torch.cat([rest, x[:, 0].unsqueeze(1).expand_as(rest)], -1)).relu())


class BiasAfterZeros(nn.Module):
    """Every token but the first has a bias."""

    def __init__(self):
        super().__init__()
        self.embed, self.bias, self.head = nn.Linear(4, 6), nn.Parameter(torch.rand(4, 6)), nn.Linear(6, 3)

    def forward(self, x):
        zeros = torch.zeros(1, self.bias.shape[1], dtype=x.dtype)
        return self.head((self.embed(x) + torch.cat([zeros, self.bias])[None]).relu())


class Time(nn.Module):
    """A channel of ones as large as the first one."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(4, 6), nn.Linear(7, 3)

    def forward(self, x):
        x = self.embed(x)
        return self.head(torch.cat([torch.ones_like(x[..., :1]), x.relu()], -1))


class FirstState(nn.Module):
    """A recurrent network by hand, whose first state is zeros of a size that the module holds."""

    def __init__(self):
        super().__init__()
        self.hidden = 6
        self.embed, self.back, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        state = torch.zeros(len(x), self.hidden).to(x)
        for i in range(x.shape[1]):
            state = torch.tanh(self.embed(x[:, i]) + self.back(state))
        return self.head(state)


class FirstStateOfACell(nn.Module):
    def __init__(self):
        super().__init__()
        self.units = 6
        self.embed, self.head = nn.GRUCell(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        state = x.new_zeros(len(x), self.units)
        for step in x.unbind(1):
            state = self.embed(step, state)
        return self.head(state)


class PartsAsWideAsALayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.gates, self.head = nn.Linear(4, 6), nn.Linear(6, 12), nn.Linear(6, 3)

    def forward(self, x):
        x = self.embed(x)
        a, b = self.gates(x).split(x.shape[-1], -1)
        return self.head(x.relu() + a * b.sigmoid())


class Compared(nn.Module):
    """A loss in the forward pass, over channels."""

    def __init__(self):
        super().__init__()
        self.embed, self.other, self.head = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        y, z = self.embed(x), self.other(x)
        return self.head(torch.logsumexp(y * z, -1, keepdim=True) + y), F.mse_loss(y, z), F.l1_loss(y, z)


NETWORKS = (Tokens, BiasAfterZeros, Time, FirstState, FirstStateOfACell, PartsAsWideAsALayer, Compared)


@pytest.mark.parametrize("build", NETWORKS, ids=lambda build: build.__name__)
def test_embeddings_are_pruned(build):
    torch.manual_seed(0)
    network = random_weights(build())
    example = torch.randn(2, 5, 4, dtype=torch.float64)
    graph = gnnrl_lightning.trace(network, example)
    assert 6 in {group.width for group in graph.groups}
    generator = torch.Generator().manual_seed(1)
    for widths in (graph.smallest, graph.widths // 2, graph.widths - 1):
        check(graph, network, (example,), widths, generator)


class Shuffled(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.shuffle = nn.Conv1d(5, 6, 1), nn.ChannelShuffle(2)
        self.gain, self.head = nn.Parameter(torch.rand(6, 1, 1)), nn.Conv2d(6, 3, 1)

    def forward(self, x):
        return self.head(self.shuffle(self.embed(x)[..., None]) * self.gain)


def test_groups_that_are_shuffled_keep_equal_counts():
    network, example = random_weights(Shuffled()), torch.randn(2, 5, 4, dtype=torch.float64)
    graph = gnnrl_lightning.trace(network, example)
    assert [(group.name, group.width, group.sets) for group in graph.groups] == [("embed", 3, 2)]
    for width in (1, 2):
        check(graph, network, (example,), torch.tensor([width]), torch.Generator().manual_seed(1))
