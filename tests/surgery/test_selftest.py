"""The self-test: which groups fail, and messages for networks whose code depends on widths."""

import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks.cifar_resnet import resnet20
from gnnrl_lightning.surgery.exactness import exactness_fault, randomised
from gnnrl_lightning.surgery.selftest import _drawn, count_macs, find_culprits, on_meta, shape_fault
from gnnrl_lightning.tracing.axes import Selection
from tests.support.exactness import macs_of, random_weights
from tests.support.networks_code import Code, macs
from tests.support.networks_zoo import Pair


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


class Scaled(Pair):
    """A scale by the number of channels runs at any width, but is another function."""

    def __init__(self, bias=True):
        super().__init__(6, 6)
        self.a, self.b = nn.Conv2d(3, 6, 3, bias=bias), nn.Conv2d(6, 5, 3, bias=bias)

    def features(self, x):
        x = self.a(x)
        return self.b(x / x.shape[1] ** 0.5)


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


def test_code_that_depends_on_the_width_freezes_exactly_its_group():
    graph = gnnrl_lightning.trace(Scaled(), torch.randn(1, 3, 8, 8))
    assert [group.name for group in graph.groups] == ["b"]
    (group,) = (group for group in graph.frozen if group.name == "a")
    assert group.operator == "self-test" and "away from the masked dense network" in group.reason


def test_the_self_test_does_not_depend_on_the_examples_values():
    """Without biases a black image is zero everywhere: every fault would pass."""
    graph = gnnrl_lightning.trace(Scaled(bias=False), torch.zeros(1, 3, 8, 8))
    assert [group.name for group in graph.groups] == ["b"]


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


def test_noise_in_the_code_is_the_same_in_both_networks():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)

        def forward(self, x):
            return self.b(self.a(x + torch.randn_like(x)))

    assert [group.name for group in gnnrl_lightning.trace(Noisy(), torch.rand(1, 3, 8, 8)).groups] == ["a"]


def test_a_fault_of_nothing_pruned_is_an_error():
    with pytest.raises(UserError, match="fails a test with nothing pruned: it is broken"):
        find_culprits([], lambda groups: "it is broken")


def test_inputs_that_a_network_does_not_take_are_the_users():
    """Logarithms of noise are not numbers."""

    class Logarithms(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)

        def forward(self, x):
            return self.b(self.a(x.log()))

    graph = gnnrl_lightning.trace(Logarithms(), torch.full((1, 3, 8, 8), 2.0))
    assert [group.name for group in graph.groups] == ["a"]


def test_a_network_that_no_frozen_group_repairs_is_refused(monkeypatch):
    monkeypatch.setattr("gnnrl_lightning.tracer.MAX_ROUNDS", 1)
    with pytest.raises(UserError, match="HardCoded cannot be pruned exactly: the network's own code does not follow"):
        gnnrl_lightning.trace(HardCoded(), torch.zeros(1, 3, 4, 4))


class Untraced(Code):
    """Its forward pass fails without export."""

    def between(self, x):
        if not torch.compiler.is_exporting():
            raise ValueError("only for export")
        return x


class OtherPath(Code):
    def between(self, x):
        return x if torch.compiler.is_exporting() else self.b(x).repeat(1, 2, 2, 2)[:, :8, :4, :4]


class SinglePrecision(Code):
    def between(self, x):
        return x.float()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Untraced(), r"Untraced fails with nothing pruned \(test_selftest.py:\d+: raise .*: only for export"),
        (OtherPath(), f"OtherPath has .* MACs by torch.utils.flop_counter, but {macs():,} in its graph"),
        (
            SinglePrecision(),
            r"fails in float64 with random weights and inputs \(networks_code.py:\d+: .* self_test=False",
        ),
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


def test_code_that_needs_values_is_tested_with_data():
    graph = gnnrl_lightning.trace(Values(), torch.randn(1, 3, 6, 6))
    assert [(group.name, group.width) for group in graph.groups] == [("a", 8), ("b", 6)]


@pytest.fixture(scope="module")
def traced():
    network = resnet20().eval()
    inputs = (torch.zeros(1, 3, 8, 8),)
    return network, inputs, gnnrl_lightning.trace(network, inputs, self_test=False)


def half(graph):
    kept = [torch.arange(0, width, 2)[None] for width in graph.widths.tolist()]
    return Selection(kept, graph.widths.tolist()), torch.tensor([ranks.shape[1] for ranks in kept])


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


def test_the_exactness_witness(traced):
    network, inputs, graph = traced
    selection, _ = half(graph)
    assert exactness_fault(network, inputs, graph.cuts, selection, torch.Generator()) is None
    # The last statistics of the third stream (group 9) take the slices of an inner group (11) of the same width.
    wrong = dict(graph.cuts)
    wrong["layer3.2.bn2.weight"] = wrong["layer3.2.bn1.weight"]
    assert graph.groups[9].name == "layer3.0.conv2" and graph.groups[11].name == "layer3.2.conv1"
    other = [kept + (i == 9) for i, kept in enumerate(selection.kept)]
    shifted = Selection(other, graph.widths.tolist())
    assert exactness_fault(network, inputs, graph.cuts, shifted, torch.Generator()) is None
    message = exactness_fault(network, inputs, wrong, shifted, torch.Generator())
    assert message is not None and "away from the masked dense network's" in message


def test_macs_are_counted_without_data(traced):
    network, inputs, graph = traced
    assert count_macs(network, inputs) == macs_of(network, inputs) == int(graph.cost.macs(graph.widths))
    assert {tensor.device.type for tensor in on_meta(network).state_dict().values()} == {"meta"}
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"cpu"}


def test_random_weights_leave_nothing_dead():
    """A last batch norm that starts at zero (as in many training recipes) would hide every fault behind it."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    nn.init.zeros_(network[1].weight)
    other = randomised(network, torch.Generator().manual_seed(0))
    assert all((tensor != 0).all() for tensor in other.parameters())
    assert (other[1].running_var > 0).all() and other[1].num_batches_tracked == 0
    assert other[0].weight.dtype == torch.float64 and network[0].weight.dtype == torch.float32
    assert (network[1].weight == 0).all()


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
