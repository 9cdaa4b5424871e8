"""Random programs of common blocks are pruned exactly: see `networks_random`."""

import torch
from hypothesis import HealthCheck, event, given, settings

import gnnrl_lightning
from tests.support.exactness import check, macs_of, params_of, random_weights, random_widths
from tests.support.networks_random import Program, programs


@settings(suppress_health_check=list(HealthCheck))
@given(programs())
def test_random_networks_are_pruned_exactly(program):
    """Tracing without the self-test must find groups that are exact at any widths."""
    network = random_weights(Program(*program))
    inputs = (torch.randn(2, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),)
    graph = gnnrl_lightning.trace(network, inputs, self_test=False)
    event(f"{min(len(graph.groups), 5)} groups")
    assert int(graph.cost.macs(graph.widths)) == macs_of(network, inputs)
    assert int(graph.cost.params(graph.widths)) == params_of(network)
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        check(graph, network, inputs, random_widths(graph, generator), generator)
