"""Rules: one row an operator, and what happens without one."""

import pytest
import torch
import torchvision  # noqa: F401  (registers its operators)
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.tracing import rules, walk
from gnnrl_lightning.tracing.labels import Value
from gnnrl_lightning.tracing.topology import KINDS
from tests.support.exactness import macs_of
from tests.support.networks_zoo import ZOO, Pair


@torch.library.custom_op("tests::multiplied", mutates_args=())
def multiplied(x: torch.Tensor, dim: int) -> torch.Tensor:
    """Cumulative products along a dimension."""
    return torch.cumprod(x, dim)


multiplied.register_fake(lambda x, dim: torch.empty_like(x))


class Cumulative(Pair):
    """Cumulative products along a dimension, by an operator without a rule."""

    def __init__(self, dim):
        super().__init__(6, 6)
        self.dim = dim

    def features(self, x):
        return self.b(multiplied(self.a(x).sigmoid(), self.dim))


def passes(state, x, dim, **options):
    """A rule for an operator that leaves the channels where they are."""
    return Value(x.shape, x.labels)


def names(graph):
    return [group.name for group in graph.groups]


def test_every_file_of_rules_has_rules():
    modules = {row.apply.__module__.rpartition(".")[2] for row in walk.RULES.values()}
    assert modules == set(rules.__all__)


@pytest.mark.parametrize("name", sorted(set(walk.RULES) - {"pointwise"}))
def test_every_rule_is_of_an_operator_that_is_looked_up_by_its_name(name):
    operator = getattr(
        torch.ops.torchvision if walk.RULES[name].apply.__module__.endswith("vision") else torch.ops.aten, name
    )
    assert name in {walk.operator_name(getattr(operator, overload)) for overload in operator.overloads()}


def test_an_operator_has_one_rule():
    with pytest.raises(UserError, match="operator rule 'conv2d' is registered already"):
        walk.rule("conv2d", kind="conv")(passes)


def test_a_new_operator_is_one_row(monkeypatch):
    example = torch.rand(1, 3, 4, 4)
    assert names(gnnrl_lightning.trace(Cumulative(3), example)) == ["b"]
    monkeypatch.setattr(walk.RULES, "_rows", dict(walk.RULES))
    walk.rule("multiplied", kind="activation")(passes)
    assert names(gnnrl_lightning.trace(Cumulative(3), example)) == ["a", "b"]


def test_the_self_test_sees_a_wrong_row(monkeypatch):
    """Along the channels the same rule is wrong: what goes multiplies what stays."""
    monkeypatch.setattr(walk.RULES, "_rows", dict(walk.RULES))
    walk.rule("multiplied", kind="activation")(passes)
    graph = gnnrl_lightning.trace(Cumulative(1), torch.rand(1, 3, 4, 4))
    assert names(graph) == ["b"]
    assert next(group.operator for group in graph.frozen if group.name == "a") == "self-test"


def test_what_a_rule_cannot_carry_is_frozen_and_says_why(monkeypatch):
    def fails(state, *arguments, **options):
        raise error

    monkeypatch.setattr(walk.RULES, "_rows", dict(walk.RULES))
    walk.rule("multiplied", kind="activation")(fails)
    error = RuntimeError("no such shape\nand pages more")
    graph = gnnrl_lightning.trace(Cumulative(3), torch.rand(1, 3, 4, 4))
    assert names(graph) == ["b"]
    reason = "flows through an operator whose rule does not know these arguments (no such shape)"
    assert ("multiplied", reason) in {(group.operator, group.reason) for group in graph.frozen}
    error = KeyError("an error of ours")
    with pytest.raises(KeyError, match="of ours"):
        gnnrl_lightning.trace(Cumulative(3), torch.rand(1, 3, 4, 4))


def test_what_a_failing_rule_has_counted_counts_once(monkeypatch):
    def fails(state, *arguments, **options):
        state.contract(())
        raise NotImplementedError

    monkeypatch.setattr(walk.RULES, "_rows", dict(walk.RULES) | {"linear": walk.RuleRow(fails, "linear")})
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(16, 5))
    graph = gnnrl_lightning.trace(network, torch.zeros(1, 3, 2, 2), self_test=False)
    assert int(graph.cost.macs(graph.widths)) == macs_of(network, (torch.zeros(1, 3, 2, 2),))


def test_the_decorator_registers_every_name(monkeypatch):
    monkeypatch.setattr(walk.RULES, "_rows", {})
    walk.rule("one", "two", kind="pool")(passes)
    assert dict(walk.RULES) == {name: walk.RuleRow(passes, "pool") for name in ("one", "two")}


def test_every_rule_has_a_kind_of_the_state_graph():
    assert {row.kind for row in walk.RULES.values()} <= set(KINDS)


def test_an_operator_without_a_rule_costs_what_it_costs(monkeypatch):
    """A bilinear layer, without its rule: its inputs are frozen, its MACs a constant."""
    rules = {name: row for name, row in walk.RULES.items() if name != "bilinear"}
    assert len(rules) < len(walk.RULES)
    monkeypatch.setattr(walk.RULES, "_rows", rules)

    class Products(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Linear(3, 6), nn.Linear(3, 5), nn.Linear(8, 2)
            self.mix = nn.Bilinear(6, 5, 8)

        def forward(self, x):
            return self.head(self.mix(self.a(x), self.b(x)).relu())

    network = Products()
    graph = gnnrl_lightning.trace(network, torch.zeros(1, 3))
    assert int(graph.cost.macs(graph.widths)) == macs_of(network, (torch.zeros(1, 3),))
    assert {group.name for group in graph.frozen} >= {"a", "b"}


def test_operators_and_feature_maps_of_a_small_network():
    case = ZOO["Plain"]
    graph = gnnrl_lightning.trace(case.build(), case.inputs(), self_test=False)
    kinds = [operator.kind for operator in graph.operators]
    assert kinds == ["conv", "norm", "activation", "pool", "conv", "activation", "pool", "linear"]
    first, second = (operator for operator in graph.operators if operator.kind == "conv")
    assert (first.kernel, first.stride, first.groups) == ((3, 3), (1, 1), 1)
    assert (second.kernel, second.stride, second.groups) == ((3, 3), (2, 2), 1)
    shapes = [graph.feature_maps[operator.output].shape for operator in graph.operators]
    assert shapes == [*[(6, 8, 8)] * 3, (6, 4, 4), (8, 2, 2), (8, 2, 2), (8,), (10,)]
    for earlier, later in zip(graph.operators[:-1], graph.operators[1:], strict=True):
        assert later.inputs == (earlier.output,)
    assert graph.incidence.shape == (9, 2)
    assert graph.incidence.sum(0).tolist() == [4, 3]  # maps with channels of a, and of b


@pytest.mark.parametrize(
    ("name", "counts"),
    [("DenseConcat", {15: (1, 1, 1), 10: (1, 1, 0), 6: (1, 0, 0)}), ("C2f", {12: (3,), 8: (2,), 4: (1,)})],
)
def test_incidence_counts_every_channel_of_a_map(name, counts):
    """A concatenation has the channels of all its parts; a chunked convolution two for each unit of width."""
    case = ZOO[name]
    graph = gnnrl_lightning.trace(case.build(), case.inputs(), self_test=False)
    for i, feature_map in enumerate(graph.feature_maps):
        expected = counts.get(feature_map.shape[0])
        if expected is not None and len(feature_map.shape) == 3:
            assert tuple(graph.incidence[i, : len(expected)].tolist()) == expected, feature_map
            assert int(graph.channels(graph.widths[None])[0, i]) == feature_map.shape[0]
