"""The multiple of channels is chosen by measured times; the clock is a table here."""

import pytest
import torch

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.graph import trace
from gnnrl_lightning.networks import resnet20
from gnnrl_lightning.speed.alignment import CLOSE, align

EXAMPLE = torch.randn(4, 3, 16, 16)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return resnet20().eval()


@pytest.fixture(scope="module")
def graph(network):
    return trace(network, EXAMPLE[:1])


def timed(graph, times):
    """Times by multiple, and what was asked for."""
    asked = {}

    def latency(networks, inputs, rounds, seconds):
        asked.update({name: [p.shape for p in network.parameters()] for name, network in networks.items()})
        assert torch.equal(inputs, EXAMPLE) and rounds > 1 and seconds > 0
        return {name: times[name] for name in networks}

    return latency, asked


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"1": 9.0, "2": 9.0, "4": 7.0, "8": 4.0, "16": 5.0}, 8),
        ({"1": 4.0, "2": 4.0, "4": 4.0, "8": 4.0, "16": 4.0}, 1),
        ({"1": 4.0 * CLOSE + 0.01, "2": 4.0 * CLOSE, "4": 4.0, "8": 4.1, "16": 4.0}, 2),  # nearly as fast, and finer
    ],
)
def test_the_smallest_of_the_fast_multiples_is_chosen(network, graph, times, expected):
    latency, asked = timed(graph, {"dense": 10.0, **times})
    found = align(graph, network, Budget(macs=0.5), EXAMPLE, latency=latency)
    assert found.multiple == expected and found.dense == 10.0 and found.examples == 4
    assert found.milliseconds == {int(name): value for name, value in times.items()}
    assert f"widths are multiples of {expected} (ms for 4 examples" in str(found) and "dense: 10" in str(found)
    # each network meets the budget, and its widths are multiples or dense
    dense = asked.pop("dense")
    for name, shapes in asked.items():
        for shape, whole in zip(shapes, dense, strict=True):
            assert shape[0] % int(name) == 0 or shape[0] == whole[0]
    assert len({str(shapes) for shapes in asked.values()}) > 2


def test_multiples_that_miss_the_budget_are_left_out(network, graph):
    """With four channels of 16, 32 and 64 in each group, more than 3 % of the MACs are left."""
    latency, _ = timed(graph, dict.fromkeys(("dense", "1", "2", "4", "8", "16"), 1.0))
    found = align(graph, network, Budget(macs=0.03), EXAMPLE, latency=latency)
    assert found.milliseconds.keys() == {1, 2}
    with pytest.raises(UserError, match=r"budget.macs is 1e-05 .*cannot be reached"):
        align(graph, network, Budget(macs=0.00001), EXAMPLE, latency=latency)


def test_the_measurement_itself(network, graph):
    found = align(graph, network, Budget(macs=0.3), EXAMPLE, multiples=(1, 8))
    assert found.multiple in (1, 8) and all(value > 0 for value in (found.dense, *found.milliseconds.values()))


def test_an_open_multiple_binds_to_no_network(graph):
    budget = Budget(macs=0.5, channel_multiple="auto", min_width=2)
    with pytest.raises(UserError, match=r"budget.channel_multiple is auto, which jobs measure"):
        budget.on(graph)
    assert budget.aligned(4).as_record() == {"macs": 0.5, "channel_multiple": 4, "min_width": 2}
    with pytest.raises(UserError, match=r"budget.channel_multiple is automatic: it must be at least 1"):
        Budget(macs=0.5, channel_multiple="automatic")
    with pytest.raises(UserError, match=r"budget.min_width is auto"):
        Budget(macs=0.5, min_width="auto")
