"""Rows that are added up, or written, by their index: messages along the edges of a graph."""

import pytest
import torch
import torch_geometric.nn as geometric
from torch import nn

import gnnrl_lightning
from tests.support.exactness import check, random_weights, random_widths

NODES = 5
EDGES = torch.tensor([[0, 1, 2, 3, 4, 0, 2], [1, 2, 3, 4, 0, 3, 1]])
X = torch.randn(2, NODES, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Passing(nn.Module):
    """Two linear layers; behind each, every node gets what its neighbours have, by the function `way`."""

    def __init__(self, way):
        super().__init__()
        self.way, self.a, self.b, self.head = way, nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3)
        self.register_buffer("edges", EDGES)

    def messages(self, x):
        source, target = self.edges
        return self.way(x, x[:, source], target)

    def forward(self, x):
        return self.head(self.messages(self.b(self.messages(self.a(x)).relu())).mean(1))


def along(target, messages):
    """The index of each element of the messages."""
    return target[None, :, None].expand_as(messages)


WAYS = {
    "index_add": lambda x, given, to: torch.zeros_like(x).index_add(1, to, given),
    "index_add_": lambda x, given, to: x.new_zeros(x.shape).index_add_(1, to, given, alpha=2),
    "index_copy": lambda x, given, to: x.index_copy(1, to, given),
    "index_reduce": lambda x, given, to: x.index_reduce(1, to, given, "mean"),
    "scatter": lambda x, given, to: x.scatter(1, along(to, given), given),
    "scatter of a number": lambda x, given, to: x.scatter(1, along(to[:2], given[:, :2]), 0.5),
    "scatter_add": lambda x, given, to: torch.zeros_like(x).scatter_add(1, along(to, given), given),
    "scatter_reduce": lambda x, given, to: x.scatter_reduce(1, along(to, given), given, "amax", include_self=False),
    "fewer rows than messages": lambda x, given, to: x.scatter_add(1, along(to[:3], given[:, :3]), given),
}


def exact(network, names):
    """Trace the network, and check it at random widths of the groups with these names, which are all."""
    network = random_weights(network)
    graph = gnnrl_lightning.trace(network, X)
    assert [group.name for group in graph.groups] == names
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        check(graph, network, (X,), random_widths(graph, generator), generator)


@pytest.mark.parametrize("way", WAYS)
def test_channels_of_rows_act_alone(way):
    exact(Passing(WAYS[way]), ["a", "b"])


@pytest.mark.parametrize(
    "way",
    [
        lambda x, given, to: x.index_add(2, torch.arange(x.shape[2]).flip(0), x),
        lambda x, given, to: x.scatter_add(2, torch.arange(x.shape[2]).flip(0).expand_as(x), x),
    ],
)
def test_channels_that_are_written_by_their_index_are_kept(way):
    graph = gnnrl_lightning.trace(random_weights(Passing(way)), X)
    assert not graph.groups
    assert any("written through an index" in group.reason for group in graph.frozen)


class Layers(nn.Module):
    """Two layers of torch-geometric, by a function of their input and output channels."""

    def __init__(self, kind):
        super().__init__()
        self.a, self.b, self.head = kind(4, 6), kind(6, 5), nn.Linear(5, 3)
        self.register_buffer("edges", EDGES)

    def forward(self, x):
        return self.head(self.b(self.a(x, self.edges).relu(), self.edges).relu().mean(1))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (lambda i, o: geometric.GCNConv(i, o, add_self_loops=False), ["a.lin", "b.lin"]),
        (geometric.GraphConv, ["a.lin_rel", "b.lin_rel"]),
        (geometric.SAGEConv, ["a.lin_l", "b.lin_l"]),
        (lambda i, o: geometric.GINConv(nn.Linear(i, o)), ["a.nn", "b.nn"]),
        (lambda i, o: geometric.EdgeConv(nn.Linear(2 * i, o)), ["a.nn", "b.nn"]),
        (geometric.ResGatedGraphConv, ["a.lin_key", "b.lin_key"]),
        (lambda i, o: geometric.TAGConv(i, o, K=2), ["a.lins.0", "b.lins.0"]),
    ],
)
def test_layers_of_torch_geometric(kind, names):
    exact(Layers(kind), names)
