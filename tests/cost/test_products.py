import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.cost.products import CostModel, Products
from gnnrl_lightning.networks.cifar_resnet import resnet20
from tests.support.exactness import macs_of, params_of, random_widths


class TwoLayers(nn.Module):
    """3 x 3 convolution on 8 x 8 pixels, 1 x 1 convolution with stride 2, linear layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 1, stride=2, bias=False)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.b(self.a(x).relu()).mean((2, 3)))


def test_two_layers_by_hand():
    graph = gnnrl_lightning.trace(TwoLayers(), torch.zeros(4, 3, 8, 8))
    for a, b in ((6, 8), (1, 1), (4, 7)):
        widths = torch.tensor([a, b])
        assert int(graph.cost.macs(widths)) == 64 * 27 * a + 16 * a * b + 10 * b
        assert int(graph.cost.params(widths)) == (27 + 1) * a + a * b + (b + 1) * 10


def test_costs_of_each_operator():
    graph = gnnrl_lightning.trace(TwoLayers(), torch.zeros(1, 3, 8, 8))
    macs = graph.cost.operator_macs(torch.tensor([[6, 8], [2, 3]]))
    params = graph.cost.operator_params(torch.tensor([[6, 8], [2, 3]]))
    assert macs.shape == params.shape == (2, len(graph.operators))
    paying = [i for i, operator in enumerate(graph.operators) if operator.kind in ("conv", "linear")]
    assert macs[:, paying].tolist() == [[64 * 27 * 6, 16 * 48, 80], [64 * 27 * 2, 16 * 6, 30]]
    assert params[:, paying].tolist() == [[28 * 6, 48, 90], [28 * 2, 6, 40]]
    assert macs.sum(1).tolist() == graph.cost.macs(torch.tensor([[6, 8], [2, 3]])).tolist()
    assert params.sum(1).tolist() == graph.cost.params(torch.tensor([[6, 8], [2, 3]])).tolist()


def test_a_batch_of_candidates_is_its_candidates_one_by_one():
    network = resnet20()
    graph = gnnrl_lightning.trace(network, torch.zeros(1, 3, 8, 8), self_test=False)
    generator = torch.Generator().manual_seed(0)
    widths = torch.stack([random_widths(graph, generator) for _ in range(16)])
    for cost in (graph.cost.macs, graph.cost.params):
        batch = cost(widths)
        assert batch.shape == (16,) and batch.dtype == torch.int64
        assert batch.tolist() == [int(cost(row)) for row in widths]
        assert cost(widths[0]).shape == ()
    assert int(graph.cost.macs(graph.widths)) == macs_of(network, (torch.zeros(1, 3, 8, 8),))
    assert int(graph.cost.params(graph.widths)) == params_of(network) == 269_722


def test_resnet20_costs_what_is_published():
    """40.55 M MACs at 32 x 32 (He et al., 2015, count 40.8 M with the projections of other shortcuts)."""
    graph = gnnrl_lightning.trace(resnet20(), torch.zeros(1, 3, 32, 32), self_test=False)
    stem, blocks, transitions = 3 * 16 * 9 * 1024, 0, 0
    for channels, pixels in ((16, 1024), (32, 256), (64, 64)):
        blocks += (6 if channels == 16 else 5) * channels * channels * 9 * pixels
        transitions += 0 if channels == 16 else channels // 2 * channels * 9 * pixels
    assert int(graph.cost.macs(graph.widths)) == stem + blocks + transitions + 640


def test_costs_grow_with_every_width():
    graph = gnnrl_lightning.trace(resnet20(), torch.zeros(1, 3, 8, 8), self_test=False)
    widths = random_widths(graph, torch.Generator().manual_seed(1)).clamp(max=graph.widths - 1)
    wider = widths + torch.eye(len(widths), dtype=torch.int64)
    assert (graph.cost.macs(wider) > graph.cost.macs(widths)).all()
    assert (graph.cost.params(wider) > graph.cost.params(widths)).all()


def test_products_by_hand():
    """5 * (2 + 3 a) * (b) and 7 at (a, b) = (4, 6) and (1, 1)."""
    products = Products.build([(5, [(2, {0: 3}), (0, {1: 1})]), (7, [])], groups=2)
    assert products(torch.tensor([[4, 6], [1, 1]])).tolist() == [[5 * 14 * 6, 7], [5 * 5 * 1, 7]]


def test_big_numbers_are_exact():
    """An odd product near 2^53, and a factor beyond single precision."""
    a, b = 94_906_265, 94_906_267
    products = Products.build([(1, [(0, {0: 1}), (0, {1: 1})]), (16_777_217, [(0, {0: 1})])], groups=2)
    assert products(torch.tensor([[a, b]])).tolist() == [[a * b, 16_777_217 * a]]


def test_parameters_without_an_operator_count_in_the_total_only():
    cost = CostModel([(0, (2, [(0, {0: 1})]))], [(0, (3, [(0, {0: 1})])), (-1, (11, []))], n_operators=2, groups=1)
    widths = torch.tensor([[5]])
    assert cost.params(widths).tolist() == [26]
    assert cost.operator_params(widths).tolist() == [[15, 0]]
    assert cost.operator_macs(widths).tolist() == [[10, 0]]


@pytest.mark.parametrize("batch", [1, 3])
def test_channels_of_feature_maps(batch):
    graph = gnnrl_lightning.trace(TwoLayers(), torch.zeros(batch, 3, 8, 8))
    shapes = {feature_map.shape: i for i, feature_map in enumerate(graph.feature_maps)}
    channels = graph.channels(torch.tensor([[6, 8], [2, 5]]))
    for shape, expected in (((3, 8, 8), [3, 3]), ((6, 8, 8), [6, 2]), ((8, 4, 4), [8, 5]), ((10,), [10, 10])):
        assert channels[:, shapes[shape]].tolist() == expected
        assert graph.feature_maps[shapes[shape]].positions == (shape[1] * shape[2] if len(shape) > 1 else 1)
    dense = torch.tensor([feature_map.shape[0] for feature_map in graph.feature_maps])
    assert torch.equal(graph.channels(graph.widths[None])[0], dense)
