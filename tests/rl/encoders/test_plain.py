import pytest
import torch

from gnnrl_lightning.rl.encoders import GAT, GCN
from tests.support.fakes import RingTask


def ring(episodes):
    task = RingTask()
    return task.graphs(task.reset(episodes, torch.Generator().manual_seed(0))[0])


@pytest.mark.parametrize("make", [GCN, GAT])
def test_batches_are_independent_and_nodes_equivariant(make):
    encoder, batch = make(1, 8, layers=2), ring(3)
    together = encoder(batch)
    assert together.shape == (18, 8)
    order = torch.cat([torch.randperm(6) + 6 * i for i in range(3)])
    shuffled = batch.clone()
    shuffled.x, shuffled.edge_index = batch.x[order], order.argsort()[batch.edge_index]
    torch.testing.assert_close(encoder(shuffled), together[order])
    one = batch.clone()
    one.x, one.edge_index = batch.x[:6], batch.edge_index[:, :6]
    torch.testing.assert_close(encoder(one), together[:6])


@pytest.mark.parametrize("make", [GCN, GAT])
def test_messages_go_both_ways_and_as_far_as_there_are_layers(make):
    encoder, one = make(1, 8, layers=2), ring(1)
    one.edge_index = torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]])
    one.x = one.x.requires_grad_()
    (gradient,) = torch.autograd.grad(encoder(one)[3].sum(), one.x)
    assert (gradient.flatten() != 0).tolist() == [False, True, True, True, True, True]


def test_gat_refuses_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="multiple of the number of heads"):
        GAT(3, 10, heads=4)
