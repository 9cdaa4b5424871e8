"""The multiple of channels is chosen by measured times; the clock is a table here."""

import pytest
import torch
from torch import nn

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks import resnet20
from gnnrl_lightning.speed.alignment import CHOICES, CLOSE, align
from gnnrl_lightning.speed.options import LatencyOptions
from gnnrl_lightning.speed.timer import RealTimer
from gnnrl_lightning.tracer import trace

EXAMPLE = torch.randn(4, 3, 16, 16)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return resnet20().eval()


@pytest.fixture(scope="module")
def graph(network):
    return trace(network, EXAMPLE[:1])


class Table:
    """A machine that takes the given times: of the dense network, then by multiple.

    Attributes:
        asked: The networks that were measured, the dense one first.
    """

    def __init__(self, *times):
        self.times, self.asked = times, []

    def networks(self, networks):
        self.asked = list(networks)
        return list(self.times[: len(networks)])


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({1: 9.0, 2: 9.0, 4: 7.0, 8: 4.0}, 8),
        ({1: 4.0, 2: 4.0, 4: 4.0, 8: 4.0}, 1),
        ({1: 4.0 * CLOSE + 0.01, 2: 4.0 * CLOSE, 4: 4.0, 8: 4.1}, 2),  # nearly as fast, and finer
    ],
)
def test_the_smallest_of_the_fast_multiples_is_chosen(network, graph, times, expected):
    timer = Table(10.0, *times.values())
    found = align(graph, network, Budget(macs=0.5), timer, 4)
    assert found.multiple == expected and found.dense == 10.0 and found.milliseconds == times
    assert f"widths are multiples of {expected} (ms for 4 examples" in str(found) and "dense: 10" in str(found)
    # each network meets the budget, and its widths are multiples or dense
    dense, *made = ([p.shape for p in each.parameters()] for each in timer.asked)
    for multiple, shapes in zip(times, made, strict=True):
        for shape, whole in zip(shapes, dense, strict=True):
            assert shape[0] % multiple == 0 or shape[0] == whole[0]
    assert len({str(shapes) for shapes in made}) > 2


def test_multiples_that_miss_the_budget_are_left_out(network, graph):
    """With four channels of 16, 32 and 64 in each group, more than 3 % of the MACs are left."""
    timer = Table(*[1.0] * 6)
    found = align(graph, network, Budget(macs=0.03), timer, 4)
    assert found.milliseconds.keys() == {1, 2}
    with pytest.raises(UserError, match=r"budget.macs is 1e-05 .*cannot be reached"):
        align(graph, network, Budget(macs=0.00001), timer, 4)


@pytest.mark.parametrize(
    ("limits", "like"),
    [
        ({"latency": 0.4}, {"macs": 0.4}),
        ({"latency": "4 ms"}, {"macs": 0.4}),  # of the dense network's 10 ms
        ({"latency": 0.4, "macs": 0.2}, {"macs": 0.2}),
        ({"latency": 0.4, "macs": 0.9}, {"macs": 0.4}),
        ({"latency": 0.4, "params": 0.3}, {"macs": 0.4, "params": 0.3}),
    ],
)
def test_a_limit_on_the_latency_counts_as_the_same_share_of_the_macs(network, graph, limits, like):
    """It is measured for the multiple that is chosen, so nothing is known of it before."""
    timers = [Table(10.0, *[1.0] * 5) for _ in range(2)]
    for timer, given in zip(timers, (limits, like), strict=True):
        align(graph, network, Budget(given, min_width=1), timer, 4)
    first, second = ([[p.shape for p in each.parameters()] for each in timer.asked] for timer in timers)
    assert first == second and len(first) > 3


def test_a_limit_on_the_latency_below_all_macs_is_left_to_its_measurement(network, graph):
    timer = Table(10.0, *[1.0] * 5)
    assert align(graph, network, Budget(latency=1e-6), timer, 4).multiple == 1
    assert align(graph, network, Budget(latency="11 ms"), timer, 4).milliseconds.keys() == {1, 2, 4, 8}


def test_multiples_that_leave_little_to_choose_from_are_left_out(network, graph):
    """Half of the groups have 16 or 32 channels: at most two multiples of 16."""
    assert list(align(graph, network, Budget(macs=0.5), Table(*[1.0] * 6), 4).milliseconds) == [1, 2, 4, 8]
    wide = nn.Sequential(nn.Conv2d(3, 16 * CHOICES, 3), nn.ReLU(), nn.Conv2d(16 * CHOICES, 4, 3)).eval()
    found = align(trace(wide, EXAMPLE[:1]), wide, Budget(macs=0.5), Table(*[1.0] * 6), 4)
    assert list(found.milliseconds) == [1, 2, 4, 8, 16]


def test_the_measurement_itself(network, graph):
    timer = RealTimer(LatencyOptions(batch_size=4, cache=None), torch.device("cpu"), EXAMPLE[:1])
    found = align(graph, network, Budget(macs=0.3), timer, 4, multiples=(1, 8))
    assert found.multiple in (1, 8) and all(value > 0 for value in (found.dense, *found.milliseconds.values()))


def test_an_open_multiple_binds_to_no_network(graph):
    budget = Budget(macs=0.5, channel_multiple="auto", min_width=2)
    with pytest.raises(UserError, match=r"budget.channel_multiple is auto, which jobs measure"):
        budget.on(graph)
    assert budget.aligned(4).as_record() == {"macs": 0.5, "channel_multiple": 4, "min_width": 2}
    with pytest.raises(UserError, match=r"budget.channel_multiple is 'automatic': expected a whole number, at least 1"):
        Budget(macs=0.5, channel_multiple="automatic")
    with pytest.raises(UserError, match=r"budget.min_width is 'auto'"):
        Budget(macs=0.5, min_width="auto")
