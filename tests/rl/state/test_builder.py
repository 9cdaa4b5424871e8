import time

import pytest
import torch
from torch_geometric.nn import GCNConv, global_mean_pool

from gnnrl_lightning.cost.metrics import Metric
from gnnrl_lightning.rl.state.builder import EDGE_DIM, NODE_DIM, StateBuilder
from gnnrl_lightning.tracing.topology import KINDS
from tests.support.fakes import small_graph


def build(widths, statistics=None, macs=0.5):
    builder = StateBuilder(small_graph(), statistics)
    return builder(widths, torch.tensor([macs, 1.0]).expand(len(widths), 2))


def random_widths(count):
    dense = small_graph().widths
    return (torch.rand(count, len(dense)) * dense).long().clamp(min=1)


def test_features_are_finite_and_scaled():
    graph = small_graph()
    widths = torch.cat([graph.widths[None], graph.smallest[None], random_widths(20)])
    state = build(widths, 100 * torch.randn(len(graph.groups), 3))
    builder = StateBuilder(graph)
    assert state.x.shape == (22 * builder.num_nodes, NODE_DIM + 3)
    assert state.edge_attr.shape == (22 * sum(len(stage.inputs) for stage in builder.stages), EDGE_DIM)
    for features in (state.x, state.edge_attr, state.motif_x):
        assert features.isfinite().all() and features.abs().max() <= 2
    assert state.x.abs().mean() < 0.5


def node_behind(graph, module):
    """The node that the stage of a module's convolution writes."""
    builder = StateBuilder(graph)
    made_by = [graph.operators[stage.members[0]].name.split(":")[0] for stage in builder.stages]
    return builder.maps.tolist().index(builder.stages[made_by.index(module)].output)


def test_activations_join_the_convolution_that_they_alone_read():
    graph = small_graph()
    builder = StateBuilder(graph)
    kinds = [stage.kinds for stage in builder.stages]
    # stem + relu; two blocks of inner + relu, outer, sum + relu; last + relu; mean; head
    block = [("conv", "activation"), ("conv",), ("add", "activation")]
    assert kinds == [block[0], *block, *block, block[0], ("pool",), ("linear",)]
    assert builder.num_nodes == 1 + len(kinds)
    made = sorted(number for stage in builder.stages for number in stage.members)
    assert made == list(range(len(graph.operators)))


def test_node_features_of_a_convolution_by_hand():
    graph = small_graph()
    names = [group.name for group in graph.groups]
    widths = graph.widths.clone()
    inner = names.index("inner.0")
    widths[inner] = 6  # of 24
    state = build(widths[None])
    row = state.x[node_behind(graph, "inner.0")]
    assert row[0] == 6 / 24
    torch.testing.assert_close(row[1], torch.tensor(6.0).log2() / 12)
    torch.testing.assert_close(row[2], torch.tensor(24.0).log2() / 12)
    assert row[3] == torch.tensor(64.0).log2() / 16  # 8 x 8 positions
    # The dearest operators are the dense convolutions between 16 and 24 channels: 6 of 24 filters, a quarter.
    assert row[5] == 0.25
    # Parameters: 6 filters of 16 x 9 weights and a bias, over the last convolution's 32 (16 x 9 + 1).
    torch.testing.assert_close(row[6], torch.tensor(6 / 32))
    assert row[8] == 1
    assert row[11 : 11 + len(KINDS)].tolist() == [float(kind in ("conv", "activation")) for kind in KINDS]
    kept = graph.cost.macs(widths) / graph.cost.macs(graph.widths)
    torch.testing.assert_close(row[22], kept.float())
    torch.testing.assert_close(row[26], kept.float() - 0.5)


def test_a_batch_is_the_disjoint_union_of_its_states():
    widths = random_widths(3)
    batch, nodes = build(widths), StateBuilder(small_graph()).num_nodes
    singles = [build(row[None]) for row in widths]
    assert batch.num_graphs == 3
    torch.testing.assert_close(batch.x, torch.cat([s.x for s in singles]))
    torch.testing.assert_close(batch.edge_attr, torch.cat([s.edge_attr for s in singles]))
    torch.testing.assert_close(
        batch.edge_index, torch.cat([s.edge_index + i * nodes for i, s in enumerate(singles)], 1)
    )
    assert batch.edge_motif.tolist() == [m for s in singles for m in s.edge_motif.tolist()]  # motifs are shared
    torch.testing.assert_close(batch.motif_x, singles[0].motif_x)
    convolution = GCNConv(NODE_DIM, 4)
    pooled = global_mean_pool(convolution(batch.x, batch.edge_index), batch.batch)
    alone = torch.cat([convolution(s.x, s.edge_index).mean(0, keepdim=True) for s in singles])
    torch.testing.assert_close(pooled, alone)


def test_decision_weights_sum_to_one_over_maps_with_the_groups_channels():
    graph, state = small_graph(), build(small_graph().widths.repeat(2, 1))
    groups = len(graph.groups)
    sums = torch.zeros(2 * groups).index_add_(0, state.decision_index[1], state.decision_weight)
    torch.testing.assert_close(sums, torch.ones(2 * groups))
    assert state.decision_batch.tolist() == [0] * groups + [1] * groups
    for node, group in state.decision_index[:, : state.decision_index.shape[1] // 2].T.tolist():
        assert graph.incidence[StateBuilder(graph).maps[node], group] > 0


def test_equal_operators_share_a_motif():
    graph, state = small_graph(), build(small_graph().widths[None])
    edges = [graph.operators[stage.members[0]] for stage in StateBuilder(graph).stages for _ in stage.inputs]
    motif_of = {o.name.split(":")[0]: int(m) for o, m in zip(edges, state.edge_motif, strict=True)}
    assert motif_of["inner.0"] == motif_of["inner.1"]
    assert motif_of["inner.0"] != motif_of["outer.0"]
    assert motif_of["stem"] != motif_of["inner.0"]


def test_statistics_are_standardised_and_placed_on_their_groups_maps():
    graph = small_graph()
    statistics = torch.arange(float(len(graph.groups)))[:, None] * 1000
    state = build(graph.widths[None], statistics)
    expected = (statistics - statistics.mean()) / (3 * statistics.std(correction=0))
    for node, group in state.decision_index.T.tolist():
        torch.testing.assert_close(state.x[node, -1], expected[group, 0])


def test_features_of_groups_are_the_last_columns_of_their_maps():
    graph = small_graph()
    builder = StateBuilder(graph, group_features=2)
    features = torch.arange(16.0).view(2, 4, 2)
    state = builder(graph.widths.repeat(2, 1), torch.ones(2, 2), features=features)
    assert state.x.shape[1] == builder.state_dim == NODE_DIM + 2
    by_decision = features.flatten(0, 1)
    for node, decision in state.decision_index.T.tolist():
        torch.testing.assert_close(state.x[node, -2:], by_decision[decision])


@pytest.mark.parametrize("statistics", [torch.zeros(2, 3), torch.full((4, 1), torch.nan)])
def test_bad_statistics_are_refused(statistics):
    with pytest.raises(ValueError, match="statistics have"):
        StateBuilder(small_graph(), statistics)


def test_building_is_fast():
    builder, widths = StateBuilder(small_graph()), small_graph().widths[None]
    limits = torch.tensor([[0.5, 1.0]])
    builder(widths, limits)

    def seconds():
        start = time.perf_counter()
        builder(widths, limits)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(20)) < 0.005


def test_more_metrics_are_more_columns():
    """Activations are not a sum over operators, twice the MACs are: one column for the stage, four per metric."""
    graph = small_graph()
    twice = Metric(
        lambda graph: lambda widths: 2 * graph.cost.macs(widths),
        of_operators=lambda graph: lambda widths: 2 * graph.cost.operator_macs(widths),
    )
    metrics = {"macs": "macs", "params": "params", "activations": "activations", "twice": twice}
    builder = StateBuilder(graph, metrics=metrics)
    assert builder.state_dim == NODE_DIM + 1 + 4 * 2
    widths = torch.stack([graph.widths, graph.widths // 2])
    limits = torch.tensor([[0.5, 1.0, 0.7, 0.4]] * 2)
    x = builder(widths, limits).x.view(2, builder.num_nodes, -1)
    plain = StateBuilder(graph)(widths, limits[:, :2])
    before = plain.x.view(2, builder.num_nodes, -1)
    kinds = NODE_DIM - 7 - 11
    peak = graph.cost_of("activations")
    now = (peak(widths) / peak(graph.widths)).float()
    for row in range(2):
        here, there = x[row], before[row]
        # Stage costs: MACs, parameters, twice the MACs (the same share); then MACs read, prunable, saved by halving.
        torch.testing.assert_close(here[:, :8], torch.cat([there[:, :7], there[:, 5:6]], 1))
        torch.testing.assert_close(here[:, [8, 9, 10, 11, 13]], there[:, [7, 8, 9, 10, 9]])
        assert ((here[:, 12] >= 0) & (here[:, 12] <= 1)).all()
        torch.testing.assert_close(here[:, 14 : 14 + kinds], there[:, 11 : 11 + kinds])
        ratio, parameters = there[0, 11 + kinds : 13 + kinds].tolist()
        whole = torch.tensor([ratio, parameters, float(now[row]), ratio])
        expected = torch.cat([whole, limits[row], whole - limits[row], torch.ones(1)])
        torch.testing.assert_close(here[0, 14 + kinds :], expected)
    assert torch.equal(builder(widths, limits).edge_attr, plain.edge_attr)
    assert x.isfinite().all() and not torch.equal(now[0], now[1])
