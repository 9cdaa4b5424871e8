import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.networks import resnet20
from gnnrl_lightning.rl.encoders import GCN, MultiStage
from gnnrl_lightning.rl.state.blocks import block_names
from gnnrl_lightning.rl.state.builder import EDGE_DIM, NODE_DIM, StateBuilder
from gnnrl_lightning.rl.state.simplified import SimplifiedBuilder
from gnnrl_lightning.rl.state.views import hierarchical_graph, simplified_graph
from tests.support.fakes import small_graph


class Tiny(nn.Module):
    """A convolution, batch norm, two branches that are added, a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.left = nn.Conv2d(4, 6, 1)
        self.right = nn.Conv2d(4, 6, 3, padding=1)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        x = self.bn(self.stem(x)).relu()
        return self.head((self.left(x) + self.right(x).relu()).mean((2, 3)))


@pytest.fixture(scope="module")
def tiny():
    return gnnrl_lightning.trace(Tiny().eval(), torch.zeros(1, 3, 4, 4))


@pytest.fixture(scope="module")
def residual():
    return gnnrl_lightning.trace(resnet20(), torch.zeros(1, 3, 32, 32), self_test=False)


def modules(data):
    return [name.split(":")[0] or name.split(":")[-1] for name in data.name]


def test_simplified_graph_by_hand(tiny):
    data = simplified_graph(tiny)
    assert modules(data) == ["x", "stem", "left", "right", "add", "head"]
    assert data.kinds == [
        ["input"],
        ["conv", "norm", "activation"],
        ["conv"],
        ["conv", "activation"],
        ["add", "pool"],
        ["linear"],
    ]
    assert data.edge_index.T.tolist() == [[0, 1], [1, 2], [1, 3], [2, 4], [3, 4], [4, 5]]
    assert data.channels.tolist() == [3, 4, 6, 6, 6, 2]
    assert data.prunable.tolist() == [0, 1, 1, 1, 1, 0]
    # Level 2: x, stem with bn and relu, left, right with relu, add, mean, head.
    assert data.node.tolist() == [0, 1, 2, 3, 4, 4, 5]
    macs = torch.tensor([0.0, 3 * 4 * 9 * 16, 4 * 6 * 16, 4 * 6 * 9 * 16, 0, 6 * 2])
    torch.testing.assert_close(data.x[:, 5], macs / macs.max())
    readers = torch.tensor([macs[1], macs[2] + macs[3], 0, 0, macs[5], 0])
    torch.testing.assert_close(data.x[:, 7], readers / macs.max())
    # Group 0 is in the stem, group 1 in left, right, add and mean.
    weights = torch.zeros(6, 2).index_put(tuple(data.decision_index), data.decision_weight)
    torch.testing.assert_close(weights.T, torch.tensor([[0, 1, 0, 0, 0, 0], [0, 0, 0.25, 0.25, 0.5, 0]]))


def test_simplified_graphs_have_the_fields_of_full_states():
    graph = small_graph()
    widths = torch.stack([graph.widths, graph.smallest])
    simplified, full = (
        builder(graph)(widths, torch.tensor([0.5, 1.0]).expand(2, 2)) for builder in (SimplifiedBuilder, StateBuilder)
    )
    assert set(simplified.keys()) == set(full.keys())
    assert torch.equal(simplified.decision_batch, full.decision_batch)
    assert simplified.num_nodes < full.num_nodes and simplified.x.abs().max() <= 2
    for encoder in (GCN, MultiStage):
        assert encoder(NODE_DIM, hidden=8)(simplified).shape == (simplified.num_nodes, 8)
    torch.testing.assert_close(simplified.x[0, 22:29], full.x[0, 22:29])


def test_levels_have_the_documented_shapes(residual):
    levels = hierarchical_graph(residual)
    builder, network = StateBuilder(residual), levels.network
    nodes, edges = builder.num_nodes, sum(len(stage.inputs) for stage in builder.stages)
    assert network.x.shape == (nodes, NODE_DIM) and network.edge_attr.shape == (edges, EDGE_DIM)
    for name in ("name", "kinds", "shape", "channels", "prunable", "block", "map"):
        assert len(network[name]) == nodes, name
    assert network.kinds[0] == ["input"] and network.channels[0] == 3 and network.prunable[0] == 0
    assert levels.costs["macs"] == residual.cost.macs(residual.widths) and len(levels.groups) == len(residual.groups)
    written = network.edge_index[1].tolist()
    assert sum(motif.uses for motif in levels.motifs) == edges
    for target, number in zip(written, network.edge_motif.tolist(), strict=True):
        assert levels.motifs[number].kinds == network.kinds[target]
        assert levels.motifs[number].members[2] == network.channels[target]


def test_levels_follow_the_widths(tiny):
    levels = hierarchical_graph(tiny, torch.tensor([2, 3]))
    assert levels.network.channels.tolist() == [3, 2, 3, 3, 3, 3, 2]
    assert levels.costs["macs"] == 16 * (3 * 2 * 9 + 2 * 3 + 2 * 3 * 9) + 3 * 2
    assert simplified_graph(tiny, torch.tensor([2, 3])).channels.tolist() == [3, 2, 3, 3, 3, 2]


def test_blocks_are_a_partition_into_the_residual_blocks(residual):
    levels = hierarchical_graph(residual)
    blocks = levels.blocks
    residuals = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)]
    assert blocks.name == ["x", "conv1", *residuals, "mean"]
    # A block has two convolutions with what follows them and a sum; two of them a shortcut of four operators too.
    assert blocks.members.tolist() == [1, 1, 3, 3, 3, 7, 3, 3, 7, 3, 3, 2]
    assert levels.network.block.bincount().tolist() == blocks.members.tolist()
    assert blocks.edge_index.tolist() == [list(range(11)), list(range(1, 12))]
    assert blocks.x.shape == (12, NODE_DIM)
    torch.testing.assert_close(blocks.x[2], levels.network.x[levels.network.block == 2].mean(0))
    for operator in residual.operators:
        if operator.name.startswith("layer"):
            assert operator.name.startswith(block_names(residual)[operator.output])


class Mixed(nn.Module):
    """A container of which one module joins, a classifier of several layers, single operators."""

    class Joining(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            return x + self.conv(x)

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), self.Joining())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))

    def forward(self, x):
        return self.classifier(self.pool(self.features(x)).flatten(1))


def test_siblings_of_blocks_are_blocks_and_the_rest_goes_by_children():
    graph = gnnrl_lightning.trace(Mixed().eval(), torch.zeros(1, 3, 2, 2))
    names = ["x", *["features.0"] * 2, *["features.1"] * 2, *["pool"] * 2, *["classifier"] * 3]
    assert block_names(graph) == names


def test_a_network_without_groups_has_its_levels():
    graph = gnnrl_lightning.trace(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.zeros(1, 3, 2, 2))
    assert not graph.groups
    levels = hierarchical_graph(graph)
    assert levels.groups == () and levels.network.x.isfinite().all()
    assert simplified_graph(graph).kinds == [["input", "shape"], ["linear"]]


class Tokens(nn.Module):
    """A multilayer perceptron over tokens with learned positions, as in a vision transformer."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.position = nn.Parameter(torch.randn(1, 5, 8))
        self.norm = nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x):
        x = self.embed(x) + self.position
        return self.down(self.up(self.norm(x)).relu())


def test_channels_of_tokens_are_found_beside_the_positions():
    graph = gnnrl_lightning.trace(Tokens().eval(), torch.zeros(1, 5, 6))
    assert [(group.name, group.width) for group in graph.groups] == [("embed", 8), ("up", 12)]
    data = hierarchical_graph(graph).network
    hidden = [number for number, name in enumerate(data.name) if name.startswith("up:")]
    assert data.channels[hidden].tolist() == [12] and data.prunable[hidden].tolist() == [1]
    nodes, groups = data.decision_index.tolist()
    assert [node for node, group in zip(nodes, groups, strict=True) if group == 1] == hidden
