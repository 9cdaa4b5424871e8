"""Peak memory of feature maps: by hand, and against the program of the pruned network, run operator by operator."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.cost.activations import alive_maps
from gnnrl_lightning.cost.metrics import METRICS
from tests.support import networks_zoo as zoo
from tests.support.exactness import random_plan, random_widths
from tests.support.networks_random import Program, programs
from tests.support.networks_zoo import ZOO


class Plain(nn.Module):
    """On 4 x 4 pixels: 3 -> a channels, ReLU, a -> b channels with stride 2, mean, 5 outputs."""

    def __init__(self, in_place=False):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 8, 1, stride=2), nn.Linear(8, 5)
        self.relu = nn.ReLU(in_place)

    def forward(self, x):
        return self.head(self.b(self.relu(self.a(x))).mean((2, 3)))


class Skip(nn.Module):
    """A stream of width w and a branch of width v: the stream is alive until the sum."""

    def __init__(self):
        super().__init__()
        self.stem, self.down, self.up = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

    def forward(self, x):
        x = self.stem(x)
        return (x + self.up(self.down(x))).mean((2, 3)), x


def peak(network, widths, size=4):
    graph = gnnrl_lightning.trace(network, torch.zeros(2, 3, size, size))
    return graph.cost_of("activations")(torch.tensor(widths)).tolist()


def test_a_chain_by_hand():
    """The input and a's map, a's map twice while the activation runs, a's and b's; 16 pixels, then 4."""
    assert peak(Plain(), [[6, 8], [1, 8], [2, 8], [1, 1]]) == [
        4 * 16 * (6 + 6),  # a and its activation
        4 * 16 * (3 + 1),  # the input and a
        4 * 16 * (3 + 2),
        4 * 16 * (3 + 1),
    ]


def test_what_is_written_in_place_takes_no_memory():
    """Now the activation is a's map; with (6, 8) b runs beside it: 6 * 16 + 8 * 4 is more than (3 + 6) * 16 is not."""
    assert peak(Plain(in_place=True), [[6, 8], [1, 8]]) == [4 * max(16 * (3 + 6), 16 * 6 + 4 * 8), 4 * 16 * (3 + 1)]


def test_a_shortcut_is_alive_until_it_is_added_and_an_output_to_the_end():
    network = Skip()
    # x, down(x), up(down(x)); then x, up, sum: the stream is 8 channels (an output is frozen), the branch 2.
    assert peak(network, [[2], [1]]) == [4 * 16 * (8 + 8 + 8), 4 * 16 * (8 + 8 + 8)]
    graph = gnnrl_lightning.trace(network, torch.zeros(1, 3, 4, 4))
    names = [feature_map.name for feature_map in graph.feature_maps]
    alive = dict(zip(names, alive_maps(graph).tolist(), strict=True))
    # Operators: stem, down, up, add, mean.
    assert list(alive.values()) == [
        [True, False, False, False, False],  # the input
        [True, True, True, True, True],  # stem: an output
        [False, True, True, False, False],
        [False, False, True, True, False],
        [False, False, False, True, True],
        [False, False, False, False, True],
    ]


class Views(nn.Module):
    """Halves of a map are views: the whole map lives as long as one of them."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        left, right = self.a(x).chunk(2, 1)
        return torch.cat([self.b(left), right], 1).flatten(1)


def test_views_have_the_memory_of_what_they_are_views_of():
    graph = gnnrl_lightning.trace(Views(), torch.zeros(1, 3, 4, 4))
    # a (8 channels, both halves), b (4) and the concatenation (8); the flattened map is a view of that.
    assert int(graph.cost_of("activations")(graph.widths)) == 4 * 16 * (8 + 4 + 8)


def run_and_count(network, example):
    """Elements of the largest set of live tensors that depend on the input, running the exported program."""
    with torch.no_grad():
        program = torch.export.export(network.eval(), example, strict=False)
    nodes = list(program.graph.nodes)
    last = {node: place for place, node in enumerate(nodes)}
    for place, node in enumerate(nodes):
        for source in node.all_input_nodes:
            last[source] = place
    signature = program.graph_signature
    inputs = dict(zip(signature.user_inputs, example, strict=True))
    given = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    given |= signature.inputs_to_lifted_tensor_constants
    values, depends, most = {}, set(), 0
    for place, node in enumerate(nodes[:-1]):
        if node.op == "placeholder":
            if node.name in inputs:
                values[node] = inputs[node.name]
                depends.add(node)
            else:
                name = given[node.name]
                values[node] = {**program.state_dict, **program.constants}[name]
            continue
        arguments = torch.fx.node.map_arg((node.args, node.kwargs), lambda source: values[source])
        with torch.no_grad():
            values[node] = node.target(*arguments[0], **arguments[1])
        if any(source in depends for source in node.all_input_nodes):
            depends.add(node)
        live = [values[other] for other in values if other in depends and last[other] >= place]
        first = [value[0] if isinstance(value, (tuple, list)) else value for value in live]
        storages = {value.untyped_storage()._cdata: value for value in first if isinstance(value, torch.Tensor)}
        most = max(most, sum(v.untyped_storage().nbytes() // v.element_size() for v in storages.values()))
    return most


def check(network, example, seed=0):
    """At dense and random widths, the cost is what the pruned network's program holds at once."""
    network = network.eval()
    graph = gnnrl_lightning.trace(network, example, self_test=False)
    one = tuple(item[:1].clone() for item in example)
    generator = torch.Generator().manual_seed(seed)
    cost = graph.cost_of("activations")
    for widths in (graph.widths, *(random_widths(graph, generator) for _ in range(2))):
        pruned = random_plan(graph, network, widths, generator).apply(network)
        assert int(cost(widths)) == 4 * run_and_count(pruned, one), widths


COMMON = [
    name
    for name, case in ZOO.items()
    if case.build.__module__ in (zoo.__name__, "gnnrl_lightning.networks.cifar_resnet")
]
"""Networks of common blocks, whatever else other tests register: recurrent layers and patches hold more inside."""


@pytest.mark.parametrize("name", COMMON)
def test_the_zoo_holds_as_much_as_is_said(name):
    check(ZOO[name].build(), ZOO[name].inputs(torch.float32))


@settings(max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(programs())
def test_random_networks_hold_as_much_as_is_said(program):
    check(Program(*program), (torch.zeros(2, 3, 2, 2),))


def test_the_peak_never_rises_when_a_group_is_narrowed():
    graph = gnnrl_lightning.trace(ZOO["ResNet20"].build(), torch.zeros(1, 3, 8, 8), self_test=False)
    generator = torch.Generator().manual_seed(0)
    cost = graph.cost_of("activations")
    assert METRICS["activations"].monotone and METRICS["activations"].exact
    for _ in range(20):
        widths = random_widths(graph, generator)
        narrower = (widths - torch.eye(len(widths), dtype=torch.int64)).clamp(min=1)
        assert (cost(narrower) <= cost(widths)).all()
    assert cost(narrower[None, :3]).shape == (1, 3)
