"""Exactness, costs and surgery on typical networks: see `networks_zoo` for the expected results."""

import copy
import pickle
import random
import re
from functools import cache

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import gnnrl_lightning
from gnnrl_lightning.surgery.selftest import find_faults
from gnnrl_lightning.tracing.program.older_torch import OLDER
from gnnrl_lightning.tracing.walk import RULES
from tests.support import (
    networks_attention,
    networks_compared,
    networks_frozen,
    networks_hard,
    networks_masks,
    networks_norms,
    networks_parts,
    networks_ratios,
    networks_recurrent,
    networks_sizes,
    networks_space,
)
from tests.support.exactness import (
    assert_untouched,
    check,
    difference,
    forward,
    macs_of,
    params_of,
    random_weights,
    random_widths,
    snapshot,
    train_one_step,
)
from tests.support.fakes import small_graph
from tests.support.networks_zoo import ZOO, Pair

MORE = (
    networks_attention,
    networks_compared,
    networks_hard,
    networks_frozen,
    networks_masks,
    networks_norms,
    networks_parts,
    networks_ratios,
    networks_recurrent,
    networks_sizes,
    networks_space,
)
"""Importing them registers their networks."""

WITHOUT_A_RULE = {"NoRule": {"masked_scatter"}}
"""Network -> its operators that have no rule."""

every_network = pytest.mark.parametrize("name", ZOO)


@cache
def traced(name):
    """The network with random weights, float64, and its graph."""
    torch.manual_seed(0)
    case = ZOO[name]
    network = random_weights(case.build())
    return network, gnnrl_lightning.trace(network, case.inputs(torch.float64))


@every_network
def test_groups_and_frozen_channels(name):
    _, graph = traced(name)
    assert {group.name: (group.width, group.sets) for group in graph.groups} == ZOO[name].groups
    assert {group.name: group.width for group in graph.frozen} == ZOO[name].frozen
    assert all(group.reason and group.operator for group in graph.frozen)
    seen = [group for group in graph.frozen if group.operator not in ("input", "output", "self-test")]
    assert all(re.search(r"networks_\w+\.py:\d+: .*\w", group.source) for group in seen)
    reasons = {group.name: f"{group.operator}: {group.reason}" for group in graph.frozen}
    for frozen, words in ZOO[name].reason.items():
        assert words in reasons[frozen]


@every_network
def test_every_operator_has_a_rule(name):
    """All operators in the graphs of the test networks, but one."""
    walked = traced(name)[1]._walk
    without = {step.operator for step in walked.steps if step.kind == "other" and step.operator not in RULES}
    assert without == WITHOUT_A_RULE.get(name, set())


@every_network
def test_the_dense_cost_is_the_networks_own(name):
    network, graph = traced(name)
    assert int(graph.cost.macs(graph.widths)) == macs_of(network, ZOO[name].inputs(torch.float64))
    assert int(graph.cost.params(graph.widths)) == params_of(network)


@every_network
def test_pruned_is_masked_dense_and_costs_what_the_model_says(name):
    network, graph = traced(name)
    inputs = ZOO[name].inputs(torch.float64)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        check(graph, network, inputs, random_widths(graph, generator), generator)
    check(graph, network, inputs, graph.smallest, generator)
    dense = check(graph, network, inputs, graph.widths, generator)
    assert difference(forward(dense, inputs), forward(network, inputs)) == 0


@every_network
def test_the_pruned_network_trains_copies_and_exports(name):
    network, graph = traced(name)
    inputs = ZOO[name].inputs(torch.float64)
    generator = torch.Generator().manual_seed(2)
    pruned = graph.plan(network, random_widths(graph, generator)).apply(network)
    train_one_step(pruned, inputs)
    expected = forward(pruned, inputs)
    assert difference(forward(copy.deepcopy(pruned), inputs), expected) == 0
    try:
        exported = torch.export.export(pruned, inputs, strict=False)
    except RuntimeError:
        if not OLDER:
            raise
        with pytest.raises(RuntimeError):  # states of a recurrent layer have other shapes there
            torch.export.export(network, inputs, strict=False)
        return
    assert difference(forward(exported.module(), inputs), expected) <= 1e-12
    assert pruned.state_dict().keys() == network.state_dict().keys()


@every_network
def test_tracing_and_pruning_leave_the_network_as_it_is(name):
    network = ZOO[name].build().train()
    list(network.children())[-1].eval()
    next(network.parameters()).requires_grad_(False)
    network.register_forward_hook(lambda module, args, output: None)
    torch.manual_seed(3)
    before = snapshot(network)
    graph = gnnrl_lightning.trace(network, ZOO[name].inputs())
    assert_untouched(network, before)
    plan = graph.plan(network, graph.smallest)
    pruned = plan.apply(network)
    plan.mask(network)
    assert_untouched(network, before)
    assert [module.training for module in pruned.modules()] == before["modes"]
    assert [parameter.requires_grad for parameter in pruned.parameters()] == before["requires_grad"]
    assert len(pruned._forward_hooks) == 1
    shared = {id(tensor) for tensor in (*network.parameters(), *network.buffers())}
    assert not shared & {id(tensor) for tensor in (*pruned.parameters(), *pruned.buffers())}


class Draws(Pair):
    """Its code draws random numbers from every generator, as stochastic depth does in training."""

    def __init__(self):
        super().__init__(6, 6)

    def features(self, x):
        if random.random() + np.random.rand() < 0:
            return x
        return self.b(F.dropout(self.a(x), 0.1, self.training) + 0 * torch.rand(()))


def test_tracing_leaves_the_random_generators_as_they_are():
    network = Draws()
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gnnrl_lightning.trace(network, torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert random.getstate() == states[0]
    assert all(np.array_equal(*each) for each in zip(np.random.get_state(), states[1], strict=True))
    assert torch.equal(torch.get_rng_state(), states[2])


@pytest.mark.parametrize("name", ["ResNet20", "GRU", "Subscripts"])
@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda graph: pickle.loads(pickle.dumps(graph))], ids=["copy", "pickle"]
)
def test_a_graph_can_be_copied_and_pickled(name, again):
    network, graph = traced(name)
    graph.cost_of(lambda graph: lambda widths: widths.sum(-1))  # cannot be pickled, and is found again
    other = again(graph)
    assert str(other) == str(graph) and other.fingerprint == graph.fingerprint
    widths = random_widths(graph, torch.Generator().manual_seed(4))
    assert other.costs(widths) == graph.costs(widths)
    expected = graph.plan(network, widths).apply(network).state_dict()
    found = other.plan(network, widths).apply(network).state_dict()
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)
    assert other.removable.groups.tolist() == graph.removable.groups.tolist()


def test_a_graph_and_a_plan_say_what_they_are():
    graph = small_graph()
    dense = int(graph.cost.macs(graph.widths))
    assert repr(graph).startswith(f"ComputationGraph(4 groups, macs {dense:,}, params ")
    lines = str(graph.limited({"last": {"min": 4, "max": 20}})).splitlines()
    assert lines[0] == repr(graph) and lines[4] == "  last: 32 channels, from 4 to 20, in 3 tensor dimensions"
    assert any(line.startswith("  frozen head: 10 channels, ") for line in lines[5:])
    plan = graph.plan_from([torch.arange(width // 2)[None] for width in graph.widths.tolist()])
    assert repr(plan) == "Plan(stem: 8, inner.0: 12, inner.1: 12, last: 16)"


def test_metrics_made_of_the_latency_follow_it():
    network = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
    graph = gnnrl_lightning.trace(network, torch.zeros(1, 4), self_test=False)

    def energy(traced):
        return lambda widths: 3 * traced.latency(widths)

    for factor in (1, 10):
        graph = graph.with_latency(lambda widths, factor=factor: factor * widths.sum(-1).double())
        assert float(graph.cost_of(energy)(graph.widths)) == 3 * factor * 6


@pytest.mark.parametrize(("name", "tested"), [("Plain", False), ("ConstantView", True)])
def test_a_graph_that_has_passed_its_tests_is_not_tested_again(name, tested, monkeypatch):
    """The fingerprint is that of a graph after the test: where a test has frozen channels, it is made again."""
    network, graph = traced(name)
    calls = []
    monkeypatch.setattr("gnnrl_lightning.tracer.find_faults", lambda *args: calls.append(args) or find_faults(*args))
    again = gnnrl_lightning.trace(network, ZOO[name].inputs(torch.float64), passed=graph.fingerprint)
    assert bool(calls) == tested and again.fingerprint == graph.fingerprint and str(again) == str(graph)


def test_a_network_without_prunable_channels_has_nothing_to_project():
    graph = gnnrl_lightning.trace(torch.nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8))
    with pytest.raises(gnnrl_lightning.UserError, match="no channels that can be pruned: see `reasons`"):
        graph.project(graph.widths, macs=0.5)
