"""Limits of single groups, by hand."""

import dataclasses

import pytest
import torch

import gnnrl_lightning
from gnnrl_lightning.cost.ranges import GroupLimit, WidthRanges
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks.cifar_resnet import resnet20


@pytest.fixture(scope="module")
def graph():
    return gnnrl_lightning.trace(resnet20(), torch.zeros(1, 3, 8, 8), self_test=False)


@pytest.mark.parametrize(
    ("limit", "width", "lowest", "highest"),
    [
        (GroupLimit(min=0.25), 10, 3, 10),
        (GroupLimit(max=0.25), 10, 1, 2),
        (GroupLimit(max="1%"), 10, 1, 1),
        (GroupLimit(min="30%", max="70%"), 10, 3, 7),  # 0.3 * 10 and 0.7 * 10 are not whole in floating point
        (GroupLimit(min=4, max=48), 64, 4, 48),
        (GroupLimit(min="4", max=48.0), 16, 4, 16),
        (GroupLimit(min=64), 16, 16, 16),
        (GroupLimit(min="100%"), 16, 16, 16),
    ],
)
def test_shares_and_channels(limit, width, lowest, highest):
    assert (limit.lowest(width), limit.highest(width)) == (lowest, highest)


@pytest.mark.parametrize("value", [0, 1, 1.0, "1", -3, 2.5, "0%", "101%", "half", "nan", "inf", "", "%"])
@pytest.mark.parametrize("name", ["min", "max"])
def test_what_is_neither_share_nor_channels_is_refused(name, value):
    with pytest.raises(UserError, match=f"groups.limits has {name} .*expected a share of the dense width"):
        GroupLimit(**{name: value})


def test_one_may_mean_two_things():
    with pytest.raises(UserError, match=r"one channel or all of them.*100% is all"):
        GroupLimit(max=1)


def test_an_entry_without_limits_is_refused():
    with pytest.raises(UserError, match="without limits: give min, max or both"):
        GroupLimit()


def ranges(graph, limits):
    found = graph.limited(limits).ranges
    return {
        name: (low, high)
        for name, low, high, dense in zip(
            found.names, found.lowest.tolist(), found.highest.tolist(), graph.widths.tolist(), strict=True
        )
        if (low, high) != (1, dense)
    }


def test_limits_by_group_module_and_glob(graph):
    names = [group.name for group in graph.groups]
    inner = next(name for name in names if name.startswith("layer3"))
    assert ranges(graph, {inner: {"min": 2}}) == {inner: (2, 64)}
    everything = ranges(graph, {"*": GroupLimit(max="50%")})
    assert everything == {group.name: (1, group.width // 2) for group in graph.groups}
    # A container stands for all channels that its layers make, streams included.
    made = {
        group.name
        for group in graph.groups
        if any(member.role == "output" and member.parameter.startswith("layer3.") for member in group.members)
    }
    assert ranges(graph, {"layer3": {"min": 3}}).keys() == made
    # A stream goes by the name of its first producer, and is found by that of any other.
    stream = next(group for group in graph.groups if sum(member.role == "output" for member in group.members) > 1)
    producers = [member.parameter.rpartition(".")[0] for member in stream.members if member.role == "output"]
    assert all(ranges(graph, {producer: {"min": 5}}) == {stream.name: (5, stream.width)} for producer in producers)


def test_of_several_limits_all_hold(graph):
    name = graph.groups[-1].name
    width = graph.groups[-1].width
    assert ranges(graph, {name: {"min": 3, "max": "50%"}, f"{name}*": {"min": 4}}) == {name: (4, width // 2)}
    with pytest.raises(UserError, match=f"groups.limits leaves {name} no width: at least 9 and at most 8 of"):
        graph.limited({name: {"min": 9}, f"{name}*": {"max": 8}})


def test_limits_of_nothing_are_refused_with_near_names(graph):
    name = graph.groups[-1].name
    with pytest.raises(UserError, match=rf"'{name}x' matches no group that can be pruned \(did you mean {name}"):
        graph.limited({f"{name}x": {"min": 3}})
    with pytest.raises(UserError, match="expected min, max or both"):
        graph.limited({name: {"least": 3}})


def test_a_graph_without_limits_allows_everything(graph):
    free = graph.limited({"*": {"max": 4}}).limited(None)
    assert torch.equal(free.ranges.highest, graph.widths) and torch.equal(free.smallest, torch.ones_like(graph.widths))
    assert torch.equal(graph.ranges.highest, graph.widths)  # the first graph is as it was
    assert WidthRanges.of([]).hold(torch.zeros(3, 0)).tolist() == [True] * 3


def test_ranges_of_a_network_that_was_pruned_are_those_of_the_dense_one(graph):
    """Not shares of what is left; a group that has become narrower than its lowest width keeps all channels."""
    ranges = WidthRanges.of(graph.groups, {"conv1": {"min": "50%", "max": 12}, "layer3.*.conv1": {"max": "50%"}})
    left = [dataclasses.replace(group, width=6) for group in graph.groups if group.name != "layer1.0.conv1"]
    found = ranges.narrowed(left)
    assert found.names == tuple(group.name for group in left)
    row = {name: number for number, name in enumerate(found.names)}
    assert (int(found.lowest[row["conv1"]]), int(found.highest[row["conv1"]])) == (6, 6)
    wide = ranges.narrowed([dataclasses.replace(group, width=14) for group in left])
    assert (int(wide.lowest[row["conv1"]]), int(wide.highest[row["conv1"]])) == (8, 12)
    assert wide.stays.tolist() == [name == "conv1" for name in wide.names]
    assert int(wide.highest[row["layer3.0.conv1"]]) == 14  # half of 64 is more
