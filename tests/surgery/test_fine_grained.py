import copy

import pytest
import torch
from torch import nn

from gnnrl_lightning import trace
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.surgery.fine_grained import bake_masks, mask_smallest, sparsity


def network():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 20), nn.ReLU(), nn.Linear(20, 10))


def test_the_smallest_weights_of_each_layer_are_masked():
    pruned = network()
    weight = pruned[4].weight.detach().clone()
    mask_smallest(pruned, 0.75)
    zero = pruned[4].weight == 0
    assert int(zero.sum()) == 150 and int((pruned[2].weight == 0).sum()) == 0.75 * 8 * 36 * 20
    assert weight[zero].abs().max() <= weight[~zero].abs().min()
    assert torch.equal(pruned[4].weight[~zero], weight[~zero])
    assert bool((pruned[0].weight != 0).all())


def test_across_the_network_the_largest_layer_gives_most():
    pruned = network()
    with torch.no_grad():
        pruned[4].weight.add_(10)
    mask_smallest(pruned, 0.5, scope="network")
    assert int((pruned[4].weight == 0).sum()) == 0
    assert int((pruned[2].weight == 0).sum()) == (8 * 36 * 20 + 200) // 2


def test_training_keeps_the_zeros():
    pruned = network()
    mask_smallest(pruned, 0.5)
    before = pruned[4].weight.detach().clone()
    optimizer = torch.optim.SGD(pruned.parameters(), lr=0.1)
    pruned(torch.randn(4, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    pruned(torch.randn(4, 3, 8, 8))
    after = pruned[4].weight
    assert torch.equal(after == 0, before == 0) and not torch.equal(after, before)


def test_state_dict_round_trip():
    pruned, other, x = network(), network(), torch.randn(2, 3, 8, 8)
    mask_smallest(pruned, 0.5)
    mask_smallest(other, 0.5)
    other.load_state_dict(pruned.state_dict())
    assert torch.equal(other(x), pruned(x))
    bake_masks(pruned)
    assert set(pruned.state_dict()) == set(network().state_dict())
    fresh = network()
    fresh.load_state_dict(pruned.state_dict())
    assert torch.equal(fresh(x), other(x))
    bake_masks(pruned)  # nothing is left to do
    assert torch.equal(copy.deepcopy(pruned)(x), fresh(x))


@pytest.mark.parametrize("baked", [False, True])
def test_export(baked):
    pruned, x = network().eval(), torch.randn(2, 3, 8, 8)
    mask_smallest(pruned, 0.5)
    if baked:
        bake_masks(pruned)
    torch.testing.assert_close(torch.export.export(pruned, (x,)).module()(x), pruned(x))


@pytest.mark.parametrize("baked", [False, True])
def test_structural_and_masked_sparsity_are_kept_apart(baked):
    dense = network()
    graph = trace(dense, torch.randn(1, 3, 8, 8))
    pruned = graph.plan(dense, torch.tensor([4, 20])).apply(dense)
    mask_smallest(pruned, 0.5)
    if baked:
        bake_masks(pruned)
    found = sparsity(pruned, dense)
    count = 4 * 27 + 4 + 4 * 36 * 20 + 20 + 200 + 10
    assert found.params == count and found.masked == (4 * 36 * 20 + 200) // 2
    assert found.structural == pytest.approx(1 - count / sum(p.numel() for p in dense.parameters()))
    assert found.fine_grained == pytest.approx(found.masked / count)


@pytest.mark.parametrize("amount", [-0.1, 1, 1.5])
def test_amounts_out_of_range(amount):
    with pytest.raises(UserError, match="expected a fraction from 0 to below 1"):
        mask_smallest(network(), amount)


def test_refusals():
    with pytest.raises(UserError, match="scope is 'all': expected one of layer, network"):
        mask_smallest(network(), 0.5, scope="all")
    with pytest.raises(UserError, match="Conv2d has no linear layers"):
        mask_smallest(nn.Conv2d(3, 3, 1), 0.5)
    pruned = network()
    mask_smallest(pruned, 0.5)
    with pytest.raises(UserError, match="2 has a parametrized weight already"):
        mask_smallest(pruned, 0.5)
