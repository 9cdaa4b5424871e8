"""The self-test: which groups fail, and messages for networks whose code depends on widths."""

import itertools

import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks.cifar_resnet import resnet20
from gnnrl_lightning.surgery.selftest import _drawn, count_macs, find_culprits, on_meta, shape_fault
from tests.support.exactness import half, macs_of, random_weights
from tests.support.networks_code import Code, macs


def faulty(*bad):
    """A test of groups that fails where one of the bad ones takes part; it counts its calls."""

    def fault(groups):
        fault.calls += 1
        found = [group for group in groups if group in bad]
        return f"group {found[0]} is bad" if found else None

    fault.calls = 0
    return fault


def test_nothing_at_fault_costs_one_test():
    fault = faulty()
    assert find_culprits(range(64), fault) == {}
    assert fault.calls == 1


@pytest.mark.parametrize("bad", [(0,), (63,), (17,), (3, 40), (0, 1, 2, 63)])
def test_bisection_finds_exactly_the_culprits(bad):
    fault = faulty(*bad)
    assert find_culprits(range(64), fault) == {group: f"group {group} is bad" for group in bad}
    assert fault.calls <= 1 + 2 * 6 * len(bad)


def test_groups_that_fail_only_together():
    """Groups 1 and 6 of eight fail: the later half is frozen, and the rest passes."""

    def fault(groups):
        return "1 and 6 do not go together" if {1, 6} <= set(groups) else None

    found = find_culprits(range(8), fault)
    assert 6 in found and 1 not in found
    assert fault([group for group in range(8) if group not in found]) is None


def test_an_independent_culprit_beside_a_pair():
    def fault(groups):
        if 2 in groups:
            return "2 is bad"
        return "0 and 7 do not go together" if {0, 7} <= set(groups) else None

    found = find_culprits(range(8), fault)
    assert found[2] == "2 is bad"


class HardCoded(nn.Module):
    """Three convolutions; the size of the second is a constant of the code."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(i, o, 1) for i, o in ((3, 6), (6, 8), (8, 4)))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.b(self.a(x).relu())
        return self.head(self.c(x.reshape(len(x), 8, *x.shape[2:])).mean((2, 3)))


def test_a_constant_of_the_code_freezes_exactly_its_group():
    graph = gnnrl_lightning.trace(HardCoded(), torch.zeros(1, 3, 4, 4), self_test=False)
    assert [group.name for group in graph.groups] == ["a", "c"]
    (group,) = (group for group in graph.frozen if group.name == "b")
    assert (group.width, group.operator) == (8, "self-test")
    assert "the network's own code does not follow" in group.reason


def test_a_module_that_is_called_with_a_parameter_is_counted():
    """As the class token of a vision transformer."""

    class Added(nn.Module):
        def forward(self, x, offset):
            return x + offset

    class Offset(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.add, self.offset = nn.Conv2d(3, 4, 3), Added(), nn.Parameter(torch.rand(1, 4, 1, 1))
            self.b = nn.Conv2d(4, 5, 3)

        def forward(self, x):
            return self.b(self.add(self.a(x), self.offset.expand(len(x), -1, -1, -1)))

    network = Offset()
    graph = gnnrl_lightning.trace(network, torch.rand(1, 3, 8, 8))
    assert [group.name for group in graph.groups] == ["a"] and network.offset.requires_grad


def test_a_fault_of_nothing_pruned_is_an_error():
    with pytest.raises(UserError, match="fails a test with nothing pruned: it is broken"):
        find_culprits([], lambda groups: "it is broken")


def test_a_network_that_no_frozen_group_repairs_is_refused(monkeypatch):
    monkeypatch.setattr("gnnrl_lightning.tracer.MAX_ROUNDS", 1)
    with pytest.raises(UserError, match="HardCoded cannot be pruned exactly: the network's own code does not follow"):
        gnnrl_lightning.trace(HardCoded(), torch.zeros(1, 3, 4, 4))


class Once(Code):
    """Without export, its forward pass works once, whatever copy of it runs."""

    passes = itertools.count()

    def between(self, x):
        if not torch.compiler.is_exporting() and next(self.passes):
            raise ValueError("only once")
        return x


class OtherPath(Code):
    def between(self, x):
        return x if torch.compiler.is_exporting() else self.b(x).repeat(1, 2, 2, 2)[:, :8, :4, :4]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Once(), r"Once fails with nothing pruned \(test_selftest.py:\d+: raise .*: only once"),
        (OtherPath(), f"OtherPath has .* MACs by torch.utils.flop_counter, but {macs():,} in its graph"),
    ],
)
def test_a_network_that_cannot_be_tested_is_refused_in_one_line(network, message):
    with pytest.raises(UserError, match=message) as caught:
        gnnrl_lightning.trace(network, torch.randn(1, 3, 6, 6))
    assert "\n" not in str(caught.value)


class Values(Code):
    """A grid of as many points as an element of a list says: the code needs values, which the meta device lacks."""

    def __init__(self):
        super().__init__()
        self.points = [torch.tensor(4)]

    def between(self, x):
        return x + torch.ones(self.points[0].tolist())


def test_a_network_without_numbers_is_traced_without_the_test_of_its_outputs():
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).to("meta")
    with pytest.raises(
        UserError, match=r"^Sequential is on the meta device, .*: give it its weights, or give self_tes"
    ):
        gnnrl_lightning.trace(network, torch.zeros(1, 4, device="meta"))
    assert gnnrl_lightning.trace(network, torch.zeros(1, 4, device="meta"), self_test=False).widths.tolist() == [8]


def test_code_that_needs_values_is_tested_with_data():
    graph = gnnrl_lightning.trace(Values(), torch.randn(1, 3, 6, 6))
    assert [(group.name, group.width) for group in graph.groups] == [("a", 8), ("b", 6)]


class KeptForOneShape(Code):
    """As the anchors of a detector, kept for a shape of the features; others are computed from values."""

    kept_for, offset = None, None

    def __init__(self):
        super().__init__()
        self.strides = torch.tensor([2.0])

    def between(self, x):
        if self.kept_for != x.shape:
            self.kept_for, self.offset = x.shape, torch.full(x.shape[2:], self.strides.tolist()[0], dtype=x.dtype)
        return x + self.offset


def test_code_that_needs_values_for_the_pruned_network_alone_is_tested_with_data():
    network, example = KeptForOneShape(), torch.randn(1, 3, 6, 6)
    network(example)
    graph = gnnrl_lightning.trace(network, example)
    assert [(group.name, group.width) for group in graph.groups] == [("a", 8), ("b", 6)]


class ViewBeforeAnEinsteinSum(nn.Module):
    """The size of the view is a constant of the code; PyTorch counts no MACs of the sum over a single channel."""

    def __init__(self):
        super().__init__()
        self.a, self.weight, self.b = nn.Linear(4, 2), nn.Parameter(torch.rand(2, 5)), nn.Linear(5, 3)

    def forward(self, x):
        return self.b(torch.einsum("np,pt->nt", self.a(x).view(-1, 2), self.weight))


@pytest.mark.parametrize("self_test", [True, False])
def test_groups_of_two_channels_are_tested_where_one_costs_nothing_that_is_counted(self_test):
    graph = gnnrl_lightning.trace(ViewBeforeAnEinsteinSum(), torch.zeros(1, 4), self_test=self_test)
    assert [group.name for group in graph.groups] == ["einsum"]
    assert any(group.name == "a" and "view(-1, 2) has a size" in group.reason for group in graph.frozen)


@pytest.fixture(scope="module")
def traced():
    network = resnet20().eval()
    inputs = (torch.zeros(1, 3, 8, 8),)
    return network, inputs, gnnrl_lightning.trace(network, inputs, self_test=False)


def test_the_shape_witness_counts(traced):
    network, inputs, graph = traced
    selection, widths = half(graph)
    counted = int(graph.cost.macs(widths))
    assert shape_fault(network, inputs, graph.cuts, selection, counted) is None
    message = shape_fault(network, inputs, graph.cuts, selection, counted + 1)
    assert message == f"the pruned network has {counted:,} MACs where {counted + 1:,} were expected"


def test_a_missing_cut_is_seen(traced):
    """Without one bias or statistic the pruned network does not run; the reason is the first line of the error."""
    network, inputs, graph = traced
    selection, widths = half(graph)
    cuts = {name: cut for name, cut in graph.cuts.items() if name != "layer2.1.bn1.running_var"}
    message = shape_fault(network, inputs, cuts, selection, int(graph.cost.macs(widths)))
    assert message is not None and "running_var" in message and "\n" not in message


def test_macs_are_counted_without_data(traced):
    network, inputs, graph = traced
    assert count_macs(network, inputs) == macs_of(network, inputs) == int(graph.cost.macs(graph.widths))
    assert {tensor.device.type for tensor in on_meta(network).state_dict().values()} == {"meta"}
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"cpu"}


def test_the_self_test_sees_through_dead_channels():
    network = random_weights(HardCoded())
    with torch.no_grad():
        network.c.weight.zero_()
    graph = gnnrl_lightning.trace(network, torch.zeros(1, 3, 4, 4, dtype=torch.float64))
    assert [group.name for group in graph.groups] == ["a", "c"]


def test_groups_of_one_width_are_tested_at_different_ones():
    """Otherwise code that needs two widths to be equal passes wherever they happen to be."""
    graph = gnnrl_lightning.trace(nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(4))), torch.zeros(1, 4, 2, 2))
    for seed in range(5):
        drawn = _drawn(graph, torch.Generator().manual_seed(seed))
        assert sorted(drawn.tolist()) == [1, 2, 3]


def test_groups_are_tested_at_different_shares_of_their_widths():
    """Otherwise code that needs as many channels as pairs of others passes wherever they happen to be as many."""
    network = nn.Sequential(nn.Conv1d(3, 6, 1), nn.Conv1d(6, 12, 1), nn.Conv1d(12, 9, 1), nn.Conv1d(9, 2, 1))
    graph = gnnrl_lightning.trace(network, torch.zeros(1, 3, 1), self_test=False)
    for seed in range(20):
        shares = _drawn(graph, torch.Generator().manual_seed(seed)) / graph.widths
        assert len(set(shares.tolist())) == 3


def test_one_or_two_channels_are_tested_where_there_are_no_other_widths():
    """Layer norms of one and two channels hide what these channels are."""
    network = nn.Sequential(*(nn.Conv1d(7, 7, 1) for _ in range(6)), nn.Conv1d(7, 4, 1), nn.Conv1d(4, 2, 1))
    graph = gnnrl_lightning.trace(network, torch.zeros(1, 7, 1), self_test=False)
    for seed in range(9):
        drawn = _drawn(graph, torch.Generator().manual_seed(seed)).tolist()
        assert set(drawn[:4]) == {3, 4, 5, 6} and set(drawn[4:6]) == {1, 2} and drawn[6] == 3
