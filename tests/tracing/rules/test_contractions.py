"""Einstein sums over channels. With a single channel, PyTorch multiplies instead: `FlopCounterMode` counts nothing."""

import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.tracing.rules.sums import _spelled
from tests.support.exactness import check, random_weights
from tests.support.networks_zoo import Pair


class Summed(Pair):
    """An Einstein sum of two operands, then a convolution."""

    def __init__(self, equation, read, operand):
        super().__init__(6, read)
        self.mix = nn.Parameter(torch.rand(7, 6))
        self.equation, self.operand = equation, operand

    def features(self, x):
        x = self.a(x)
        made = torch.einsum(self.equation, x, self.operand(self, x))
        return self.b(made if made.dim() == 4 else x * made[:, None].sigmoid())


@pytest.mark.parametrize(
    ("equation", "read", "operand", "groups"),
    [
        ("bchw,dc->bdhw", 7, lambda network, x: network.mix, {"a": 6, "einsum": 7, "b": 5}),
        ("bchw, dc -> bdhw", 7, lambda network, x: network.mix.sigmoid(), {"a": 6, "einsum": 7, "b": 5}),
        ("bchw,bchw->bhw", 6, lambda network, x: x.sin() + 2, {"a": 6, "b": 5}),
        ("bchw,dc", 7, lambda network, x: network.mix, {"a": 6, "einsum": 7, "b": 5}),
        ("bc...,dc->bd...", 7, lambda network, x: network.mix, {"a": 6, "einsum": 7, "b": 5}),
        ("...chw,...chw->...hw", 6, lambda network, x: x.sin() + 2, {"a": 6, "b": 5}),
    ],
)
def test_sums_over_channels(equation, read, operand, groups):
    network = random_weights(Summed(equation, read, operand))
    example = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = gnnrl_lightning.trace(network, example)
    assert {group.name: group.width for group in graph.groups} == groups
    generator = torch.Generator().manual_seed(1)
    for widths in (graph.widths, graph.widths - 1, graph.widths // 2):
        check(graph, network, (example,), widths, generator)


class OwnLinear(Pair):
    """A matrix product with a parameter, or with what is computed from one, in place of a linear layer."""

    def __init__(self, weight):
        super().__init__(6, 7)
        self.weight, self.columns = weight, nn.Parameter(torch.rand(6, 7))
        self.kernels, self.scale = nn.Parameter(torch.rand(7, 6, 3, 3)), nn.Parameter(torch.rand(7))

    def features(self, x):
        made = self.a(x).movedim(1, -1) @ self.weight(self)
        return self.b(made.relu().movedim(-1, 1))


@pytest.mark.parametrize(
    ("weight", "shrinks"),
    [
        (lambda network: network.columns, {"columns": (3, 3)}),
        (lambda network: network.columns * network.scale, {"columns": (3, 3), "scale": (3,)}),
        (lambda network: network.kernels.sum((2, 3)).t(), {"kernels": (3, 3, 3, 3)}),
    ],
    ids=["parameter", "scaled", "summed"],
)
def test_products_with_parameters_of_their_own(weight, shrinks):
    network = random_weights(OwnLinear(weight))
    example = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = gnnrl_lightning.trace(network, example)
    assert {group.name: group.width for group in graph.groups} == {"a": 6, "matmul": 7, "b": 5}
    generator = torch.Generator().manual_seed(1)
    for widths in (graph.widths, graph.widths - 1, graph.widths // 2):
        check(graph, network, (example,), widths, generator)
    pruned = graph.plan(network, torch.tensor([3, 3, 5])).apply(network)
    assert {name: tuple(getattr(pruned, name).shape) for name in shrinks} == shrinks


class LowRank(Pair):
    """A linear layer whose weight is a product of two parameters, as an adapter of low rank has."""

    def __init__(self, product):
        super().__init__(6, 7)
        self.product, self.down, self.up = product, nn.Parameter(torch.rand(2, 6)), nn.Parameter(torch.rand(7, 2))

    def features(self, x):
        weight = self.product(self.up, self.down)
        made = nn.functional.linear(self.a(x).movedim(1, -1), weight)
        return self.b(made.relu().movedim(-1, 1))


@pytest.mark.parametrize(
    "product",
    [lambda up, down: up @ down, lambda up, down: torch.einsum("or,ri->oi", up, down)],
    ids=["matmul", "einsum"],
)
def test_a_product_of_parameters_is_a_weight_and_makes_no_channels(product):
    network = random_weights(LowRank(product))
    example = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = gnnrl_lightning.trace(network, example)
    assert [(group.name, group.width) for group in graph.groups] == [("a", 6), ("linear", 7), ("b", 5)]
    assert [member.role for member in graph.groups[0].members if member.parameter == "down"] == ["input"]
    check(graph, network, (example,), graph.widths - 1, torch.Generator().manual_seed(1))


class Table(nn.Module):
    """A product with a table, which may be no parameter, then a convolution."""

    def __init__(self, product, shape, hold):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(7, 5, 3)
        self.product, made = product, torch.rand(shape, dtype=torch.float64)
        hold(self, made)

    def forward(self, x):
        return self.b(self.product(self.a(x), self.mix).relu())


PRODUCTS = {
    "inputs first": (lambda x, mix: torch.einsum("bchw,cd->bdhw", x, mix), (6, 7)),
    "outputs first": (lambda x, mix: torch.einsum("bchw,dc->bdhw", x, mix), (7, 6)),
    "table first": (lambda x, mix: torch.einsum("dc,bchw->bdhw", mix, x), (7, 6)),
    "matmul": (lambda x, mix: (x.permute(0, 2, 3, 1) @ mix).permute(0, 3, 1, 2), (6, 7)),
}


@pytest.mark.parametrize(("product", "shape"), PRODUCTS.values(), ids=PRODUCTS)
def test_columns_that_a_plain_tensor_makes_have_a_reason(product, shape):
    network = random_weights(Table(product, shape, lambda module, made: setattr(module, "mix", made)))
    example = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = gnnrl_lightning.trace(network, example, keep=["b"])
    assert not graph.groups
    (made,) = (reason for reason in graph.reasons if reason.channels == 7)
    assert made.reason == "is made by a weight that cannot be pruned"
    assert made.remedy == "use a parameter as the weight" and "test_contractions.py" in made.source
    (read,) = (reason for reason in graph.reasons if "a" in reason.groups)
    assert read.operator == made.operator and "with values that cannot be pruned" in read.reason
    assert read.source == made.source and read.remedy


HOLDS = {
    "parameter": lambda module, made: module.register_parameter("mix", nn.Parameter(made)),
    "buffer": lambda module, made: module.register_buffer("mix", made),
}


@pytest.mark.parametrize("hold", HOLDS.values(), ids=HOLDS)
@pytest.mark.parametrize(("product", "shape"), list(PRODUCTS.values())[:3], ids=list(PRODUCTS)[:3])
def test_columns_that_a_parameter_or_buffer_makes_are_pruned(product, shape, hold):
    network = random_weights(Table(product, shape, hold))
    example = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = gnnrl_lightning.trace(network, example)
    assert [(group.name, group.width) for group in graph.groups] == [("a", 6), ("einsum", 7)]
    assert not any("weight that cannot" in reason.reason for reason in graph.reasons)
    generator = torch.Generator().manual_seed(1)
    for widths in (graph.widths, graph.widths - 1, graph.widths // 2):
        check(graph, network, (example,), widths, generator)


def test_positions_that_a_plain_tensor_makes_are_no_channels():
    def resized(x, mix):
        return torch.cat([torch.einsum("bchw,hk->bckw", x, mix), x[:, :1, :1].expand(-1, 1, 9, -1)], 1)

    network = Table(resized, (6, 9), lambda module, made: setattr(module, "mix", made))
    graph = gnnrl_lightning.trace(random_weights(network), torch.randn(1, 3, 8, 8, dtype=torch.float64))
    assert 9 not in [reason.channels for reason in graph.reasons]


def test_subscripts_without_a_rule():
    network = Summed("bchh,bchw->bchw", 6, lambda network, x: x)
    graph = gnnrl_lightning.trace(network, torch.randn(1, 3, 8, 8))
    reasons = {group.name: group.reason for group in graph.frozen}
    assert "with a diagonal" in reasons["a"]


@pytest.mark.parametrize(
    ("equation", "dims", "spelled"),
    [
        ("...ij,jk->...ik", (4, 2), ("ABij,jk", "ABik")),
        ("a...,...b->ab...", (2, 3), ("aB,ABb", "abAB")),
        ("...i,...i", (3, 3), ("ABi,ABi", "AB")),
        ("A...c->...c", (3,), ("ABc", "Bc")),
        ("ij,jk", (2, 2), ("ij,jk", "ik")),
    ],
)
def test_ellipses_are_letters(equation, dims, spelled):
    """Those of several operands are aligned at the last dimension; a result that is not given has the others first."""
    assert _spelled(equation, dims) == spelled
    letters = spelled[0].split(",")
    sizes = {letter: 2 + place for place, letter in enumerate(sorted({*"".join(letters)}))}
    tensors = [torch.rand([sizes[letter] for letter in each]) for each in letters]
    assert torch.equal(torch.einsum(equation, *tensors), torch.einsum("->".join(spelled), *tensors))
