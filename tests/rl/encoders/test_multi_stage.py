import pytest
import torch

from gnnrl_lightning.rl.encoders import GAT, GCN, MotifConv, MultiStage
from gnnrl_lightning.rl.encoders.multi_stage import both_ways
from gnnrl_lightning.rl.policies.readout import decision_mean, graph_mean
from gnnrl_lightning.rl.state.builder import NODE_DIM, StateBuilder
from tests.support.fakes import small_graph


def dense(conv, h, edge_index, e):
    """h_i' = sum_j c_ij W (h_j * e_ij), with one loop over pairs of nodes and their edges."""
    n = len(h)
    pairs = [(i, j, e[k]) for k, (j, i) in enumerate(edge_index.T.tolist())]
    pairs += [(j, i, gate) for i, j, gate in pairs]
    d = torch.zeros(n)
    for i, _, _ in pairs:
        d[i] += 1
    out = torch.zeros(n, conv.out_features)
    for i, j, gate in pairs:
        out[i] += (d[i] * d[j]) ** -0.5 * (conv.linear.weight @ (h[j] * gate))
    return out


def test_convolution_is_its_formula():
    conv, h = MotifConv(4, 5), torch.randn(6, 4)
    edge_index = torch.tensor([[0, 0, 1, 2, 3, 3, 3], [1, 2, 3, 3, 4, 4, 3]])  # parallel edges, a loop, a lone node
    e = torch.randn(7, 4)
    torch.testing.assert_close(conv(h, *both_ways(edge_index, e, len(h))), dense(conv, h, edge_index, e))
    assert str(conv) == "MotifConv(4, 5)"


def test_convolution_equals_a_dense_matrix_product_when_gates_are_one():
    conv, h = MotifConv(3, 3), torch.randn(4, 3)
    edge_index = torch.tensor([[0, 1, 2], [1, 2, 3]])
    a = torch.zeros(4, 4)
    a[edge_index[0], edge_index[1]] = 1
    a = a + a.T
    scale = a.sum(0).rsqrt().diag()
    edges, ones = both_ways(edge_index, torch.ones(3, 3), len(h))
    torch.testing.assert_close(conv(h, edges, ones), scale @ a @ scale @ h @ conv.linear.weight.T)


def state(count=1):
    widths = (torch.rand(count, len(small_graph().groups)) * small_graph().widths).long().clamp(min=1)
    return StateBuilder(small_graph())(widths, torch.tensor([0.5, 1.0]).expand(count, 2))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("make", [MultiStage, GCN, GAT])
def test_order_of_nodes_permutes_nodes_and_leaves_graphs_and_decisions(make, count):
    encoder, batch = make(NODE_DIM, 16), state(count)
    nodes = len(batch.x) // count
    before = encoder(batch)
    order = torch.cat([torch.randperm(nodes) + nodes * i for i in range(count)])
    shuffled = batch.clone()
    shuffled.x = batch.x[order]
    shuffled.edge_index = order.argsort()[batch.edge_index]
    shuffled.decision_index = torch.stack([order.argsort()[batch.decision_index[0]], batch.decision_index[1]])
    after = encoder(shuffled)
    torch.testing.assert_close(after, before[order])
    torch.testing.assert_close(graph_mean(after, shuffled), graph_mean(before, batch))
    torch.testing.assert_close(decision_mean(after, shuffled), decision_mean(before, batch))
    assert graph_mean(after, shuffled).shape == (count, 16)


def test_order_of_edges_and_of_motifs_changes_nothing():
    encoder, batch = MultiStage(NODE_DIM, 16), state(2)
    shuffled = batch.clone()
    order = torch.randperm(batch.edge_index.shape[1])
    motifs = torch.randperm(int(batch.motif_batch.max()) + 1)
    shuffled.edge_index, shuffled.edge_attr = batch.edge_index[:, order], batch.edge_attr[order]
    shuffled.edge_motif = motifs[batch.edge_motif[order]]
    shuffled.motif_batch = motifs[batch.motif_batch]
    torch.testing.assert_close(encoder(shuffled), encoder(batch))


def test_states_of_a_batch_do_not_see_each_other():
    encoder, batch = MultiStage(NODE_DIM, 16), state(3)
    together = encoder(batch)
    changed = batch.clone()
    changed.x = batch.x.clone()
    first = batch.batch == 0
    changed.x[first] += 1
    after = encoder(changed)
    torch.testing.assert_close(after[~first], together[~first])
    assert not torch.allclose(after[first], together[first])


def test_motifs_reach_the_nodes():
    encoder, one = MultiStage(NODE_DIM, 16), state()
    before = encoder(one)
    changed = one.clone()
    changed.motif_weight = one.motif_weight * 2
    assert not torch.allclose(encoder(changed), before)
