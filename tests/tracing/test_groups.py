"""Groups and their members, by hand."""

import re
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gnnrl_lightning
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks.cifar_resnet import resnet20
from tests.support.networks_frozen import NoRule
from tests.support.networks_norms import PointwiseStandardized, StandardizedWeights
from tests.support.networks_zoo import ZOO, Pair


@cache
def traced(name):
    case = ZOO[name]
    return gnnrl_lightning.trace(case.build(), case.inputs(), self_test=False)


def members(graph, name):
    """`parameter:dimension:role` of a group's members."""
    (group,) = (group for group in graph.groups if group.name == name)
    return {f"{member.parameter}:{member.dimension}:{member.role}" for member in group.members}


def layer(made):
    """Members that a convolution or linear layer makes."""
    return {f"{made}.weight:0:output", f"{made}.bias:0:channel"}


def norm(name):
    return {f"{name}.{tensor}:0:channel" for tensor in ("weight", "bias", "running_mean", "running_var")}


@pytest.mark.parametrize(
    ("network", "group", "expected"),
    [
        ("Plain", "a", layer("a") | norm("norm") | {"b.weight:1:input"}),
        ("Plain", "b", layer("b") | {"head.weight:1:input"}),
        ("Residual", "stem", layer("stem") | layer("outer") | {"inner.weight:1:input", "head.weight:1:input"}),
        ("Grouped", "stem", layer("stem") | {"grouped.weight:1:input"}),
        ("C2f", "stem", layer("stem") | layer("outer") | {"inner.weight:1:input", "out.weight:1:input"}),
        ("LayerScale", "inner", layer("inner") | {"shift:1:channel", "outer.weight:1:input"}),
        ("Flatten", "stem", layer("stem") | {"hidden.weight:1:input"}),
        ("Flatten", "hidden", layer("hidden") | norm("norm") | {"head.weight:1:input"}),
        ("DenseConcat", "two", layer("two") | norm("norms.2") | {"squeeze.weight:1:input"}),
        ("Slopes", "stem", layer("stem") | {"many.weight:0:channel", "out.weight:1:input"}),
        ("Transposed", "down", layer("down") | {"up.weight:0:input"}),
        ("Transposed", "last", {"last.weight:1:output", "head.weight:1:input"}),
        (
            "DepthwiseMultiplier",
            "stem",
            layer("stem") | norm("norm") | {"deep.weight:0:channel", "deep.bias:0:channel", "point.weight:1:input"},
        ),
    ],
)
def test_members(network, group, expected):
    assert members(traced(network), group) == expected


def test_a_residual_stream_of_resnet20():
    """The second stream: made by three second convolutions, read by three first ones and the next stage's first."""
    graph = gnnrl_lightning.trace(resnet20(), torch.zeros(1, 3, 8, 8), self_test=False)
    expected = {"layer2.0.shortcut.index:0:channel", "layer3.0.conv1.weight:1:input"}
    for block in ("layer2.0", "layer2.1", "layer2.2"):
        expected |= {f"{block}.conv2.weight:0:output"} | norm(f"{block}.bn2")
    expected |= {f"layer2.{i}.conv1.weight:1:input" for i in (1, 2)}
    assert members(graph, "layer2.0.conv2") == expected
    assert members(graph, "layer2.1.conv1") == norm("layer2.1.bn1") | {
        "layer2.1.conv1.weight:0:output",
        "layer2.1.conv2.weight:1:input",
    }


def test_groups_come_in_the_order_of_the_network():
    graph = gnnrl_lightning.trace(resnet20(), torch.zeros(1, 3, 8, 8), self_test=False)
    inner = [f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in (0, 1, 2)]
    streams = {3: "layer2.0.conv2", 6: "layer3.0.conv2"}
    expected = ["conv1"]
    for i, name in enumerate(inner):
        expected.append(name)
        expected += [streams[i]] if i in streams else []
    assert [group.name for group in graph.groups] == expected
    assert graph.widths.tolist() == [16, 16, 16, 16, 32, 32, 32, 32, 64, 64, 64, 64]
    assert graph.sets.tolist() == [1] * 12
    assert graph.smallest.tolist() == [1] * 12


def test_a_frozen_group_says_where_and_why():
    (group,) = (group for group in traced(NoRule.__name__).frozen if group.name == "stem")
    assert (group.width, group.operator) == (6, "masked_scatter")
    assert "without a rule" in group.reason
    assert "networks_zoo.py" in group.source or "networks_frozen.py" in group.source


def test_the_line_is_of_the_code_that_calls_a_module_of_torch():
    """Not the line within `nn.FractionalMaxPool2d` that calls its function."""

    class Shares(Pair):
        def __init__(self):
            super().__init__(6, 6)
            self.norm = nn.FractionalMaxPool2d(1, 8)

        def features(self, x):
            return self.b(self.norm(self.a(x)))

    graph = gnnrl_lightning.trace(Shares(), torch.rand(1, 3, 8, 8), self_test=False)
    (group,) = (group for group in graph.frozen if group.name == "a")
    assert group.operator == "fractional_max_pool2d"
    assert re.fullmatch(r"norm \(networks_zoo\.py:\d+: return self\.head.+", group.source)


def test_input_and_output_are_frozen():
    reasons = {group.name: group.reason for group in traced("Plain").frozen}
    assert reasons == {"x": "is the input of the network", "head": "is an output of the network"}


def test_one_module_that_makes_two_groups_has_numbered_names():
    """Channels 0 to 1 and 2 to 4 of a convolution meet two different ones."""

    class Halves(Pair):
        def __init__(self):
            super().__init__(5, 5)
            self.c, self.d = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 3, 1)

        def features(self, x):
            return self.b((self.a(x) + torch.cat([self.c(x), self.d(x)], 1)).sigmoid())

    graph = gnnrl_lightning.trace(Halves(), torch.zeros(1, 3, 4, 4))
    assert [(group.name, group.width) for group in graph.groups] == [("a", 2), ("a#2", 3), ("b", 5)]


def test_unequal_rows_of_a_grouped_convolution_are_divided():
    """Two channels of one convolution and six of another do not fill two blocks in the same way, but in halves."""

    class Uneven(Pair):
        def __init__(self):
            super().__init__(2, 6)
            self.c, self.grouped = nn.Conv2d(3, 6, 1), nn.Conv2d(8, 6, 1, groups=2)

        def features(self, x):
            return self.b(self.grouped(torch.cat([self.a(x), self.c(x)], 1).sigmoid()).sigmoid())

    graph = gnnrl_lightning.trace(Uneven(), torch.zeros(1, 3, 4, 4))
    assert {group.name for group in graph.frozen} == {"x", "head"}
    found = [(group.name, group.width, group.sets) for group in graph.groups]
    assert found == [("a", 2, 2), ("c", 2, 2), ("grouped", 3, 2), ("b", 5, 1)]


def test_rows_are_divided_until_all_ties_agree():
    """Three blocks of 12 channels of `c` and 24 of `a` fill three blocks of 20: in pieces of 4 and of 8 channels.

    Those of 8 do not fit the blocks of `c`, so all pieces have 4.
    """

    class Uneven(Pair):
        def __init__(self):
            super().__init__(24, 6)
            self.c, self.grouped = nn.Conv2d(24, 36, 1, groups=3), nn.Conv2d(60, 6, 1, groups=3)

        def features(self, x):
            x = self.a(x).sigmoid()
            return self.b(self.grouped(torch.cat([self.c(x), x], 1).sigmoid()).sigmoid())

    graph = gnnrl_lightning.trace(Uneven(), torch.zeros(1, 3, 4, 4))
    assert {group.name for group in graph.frozen} == {"x", "head"}
    found = [(group.name, group.width, group.sets) for group in graph.groups]
    assert found == [("a", 4, 15), ("grouped", 2, 3), ("b", 5, 1)]


def test_a_shuffle_of_blocks_that_it_does_not_divide_keeps_the_channels_between():
    """Of two shuffled blocks of five, the third channels of both lie in different blocks, the others in pairs."""

    class Shuffled(Pair):
        def __init__(self):
            super().__init__(10, 6)
            self.grouped = nn.Conv2d(10, 6, 1, groups=2)

        def features(self, x):
            x = self.a(x).sigmoid()
            x = x.view(len(x), 2, -1, *x.shape[2:]).transpose(1, 2).flatten(1, 2)
            return self.b(self.grouped(x).sigmoid())

    graph = gnnrl_lightning.trace(Shuffled(), torch.zeros(1, 3, 4, 4))
    found = [(group.name, group.width, group.sets) for group in graph.groups]
    assert found == [("a", 2, 4), ("grouped", 3, 2), ("b", 5, 1)]
    assert sum(group.width for group in graph.frozen if group.name == "a") == 2


def test_blocks_with_one_output_each_go_as_a_whole():
    """Two channels of `a` make one of the grouped convolution, which has as many groups fewer."""

    class Halves(Pair):
        def __init__(self):
            super().__init__(12, 6)
            self.grouped = nn.Conv2d(12, 6, 3, padding=1, groups=6)

        def features(self, x):
            return self.b(self.grouped(self.a(x).sigmoid()).sigmoid())

    network = Halves()
    graph = gnnrl_lightning.trace(network, torch.zeros(1, 3, 4, 4))
    assert [(group.name, group.width, group.sets) for group in graph.groups] == [("a", 6, 1), ("b", 5, 1)]
    pruned = graph.plan(network, torch.tensor([4, 5])).apply(network)
    assert pruned.grouped.groups == 4 and pruned.a.out_channels == 8


def test_a_network_without_groups():
    graph = gnnrl_lightning.trace(nn.Linear(3, 2), torch.zeros(1, 3))
    assert graph.groups == () and graph.widths.shape == (0,)
    assert int(graph.cost.macs(graph.widths)) == 6 and int(graph.cost.params(graph.widths)) == 8
    plan = graph.plan(nn.Linear(3, 2), graph.widths)
    assert plan.kept == {} and plan.apply(nn.Linear(3, 2)).weight.shape == (2, 3)


def test_the_example_may_have_any_batch():
    one, many = (gnnrl_lightning.trace(resnet20(), torch.zeros(b, 3, 8, 8), self_test=False) for b in (1, 5))
    assert int(one.cost.macs(one.widths)) == int(many.cost.macs(many.widths))
    assert one.fingerprint == many.fingerprint


def test_refused_inputs():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    with pytest.raises(UserError, match=r"Sequential refuses an input of shape \(1, 3, 9, 9\): .+"):
        gnnrl_lightning.trace(network, torch.zeros(1, 3, 9, 9))
    with pytest.raises(UserError, match="no tensor with a batch dimension"):
        gnnrl_lightning.trace(network, ())


def test_code_that_cannot_be_exported_is_refused():
    class Branch(Pair):
        def features(self, x):
            x = self.a(x)
            return self.b(x if x.sum() > 0 else F.relu(x))

    with pytest.raises(UserError, match=r"its code depends on the values of a tensor \(test_groups.py:\d+: "):
        gnnrl_lightning.trace(Branch(4, 4), torch.zeros(1, 3, 4, 4))


class Mirrored(Pair):
    """Both channels of `a` are in both channels that `b` reads."""

    def features(self, x):
        x = self.a(x)
        return self.b(x + x.flip(1))


def test_channels_that_go_together_as_one_say_so():
    graph = gnnrl_lightning.trace(Mirrored(2, 2), torch.zeros(1, 3, 4, 4))
    reasons = {group.name: group.reason for group in graph.frozen}
    assert reasons["a"] == "is one channel, for all channels of its layer go together"


def test_two_inputs_of_a_standardised_filter_of_one_pixel_remain():
    network, x = PointwiseStandardized(), torch.randn(2, 3, 8, 8)
    graph = gnnrl_lightning.trace(network, x)
    assert {group.name: (group.width, group.least) for group in graph.groups} == {"a": (6, 2), "conv2d_1": (5, 1)}
    assert graph.smallest.tolist() == graph.least.tolist() == [2, 1]
    assert graph.plan(network, graph.smallest).apply(network)(x).shape == (2, 4)
    with pytest.raises(UserError, match=r"the width of a is 1: expected 2 to 6"):
        graph.plan(network, torch.tensor([1, 5]))
    wide = gnnrl_lightning.trace(StandardizedWeights(), torch.randn(2, 3, 8, 8), self_test=False)
    assert wide.least.tolist() == [1, 1]  # nine pixels
