"""Networks as people write them: which channels go together, and that the pruned network is the masked dense one."""

from functools import cache

import pytest
import torch

import gnnrl_lightning
from gnnrl_lightning.tracing.program.older_torch import OLDER
from tests.support import (
    networks_configured,
    networks_of_parts,
    networks_written_attention,
    networks_written_norms,
    networks_written_sequence,
    networks_written_tables,
    networks_written_vision,
)
from tests.support.exactness import check, difference, forward, random_weights, random_widths, train_one_step
from tests.support.networks_zoo import WRITTEN

MORE = (
    networks_configured,
    networks_of_parts,
    networks_written_attention,
    networks_written_norms,
    networks_written_sequence,
    networks_written_tables,
    networks_written_vision,
)
"""Importing them registers their networks."""

every_network = pytest.mark.parametrize("name", WRITTEN)


@cache
def traced(name):
    """The network with random weights, float64, its inputs, and its graph."""
    torch.manual_seed(0)
    network, inputs = random_weights(WRITTEN[name].build()), WRITTEN[name].inputs(torch.float64)
    return network, inputs, gnnrl_lightning.trace(network, inputs)


@every_network
def test_groups_are_those_derived_by_hand(name):
    _, _, graph = traced(name)
    assert {group.name: (group.width, group.sets) for group in graph.groups} == WRITTEN[name].groups
    assert {group.name: group.width for group in graph.frozen} == WRITTEN[name].frozen
    reasons = {group.name: f"{group.operator}: {group.reason}" for group in graph.frozen}
    for frozen, words in WRITTEN[name].reason.items():
        assert words in reasons[frozen]


@every_network
def test_pruned_is_masked_dense_and_trains(name):
    if OLDER and name == "VectorsOnBothSides":
        pytest.skip("gradients decide whether PyTorch calls an operator that FlopCounterMode does not count")
    network, inputs, graph = traced(name)
    generator = torch.Generator().manual_seed(1)
    for widths in (random_widths(graph, generator), random_widths(graph, generator), graph.smallest):
        pruned = check(graph, network, inputs, widths.maximum(graph.least), generator)
    dense = check(graph, network, inputs, graph.widths, generator)
    assert difference(forward(dense, inputs), forward(network, inputs)) == 0
    train_one_step(pruned, inputs)


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("SqueezedPixels", [1, 2]),
        ("Deviations", [2, 1]),
        ("DeviationsWithinHeads", [2]),
        ("DeviationsOfFewerDegrees", [3, 1]),
        ("FewerDegreesWithinHeads", [3]),
    ],
)
def test_as_many_channels_remain_as_a_deviation_needs(name, least):
    _, _, graph = traced(name)
    assert graph.least.tolist() == least
