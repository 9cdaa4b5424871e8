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


class SumOfThree(nn.Module):
    """An Einstein sum of three tensors between layers of positions `(batch, channels, length)`."""

    def __init__(self, equation, operands, shape, read):
        super().__init__()
        self.a, self.gate, self.b = nn.Conv1d(4, 6, 1), nn.Conv1d(4, 6, 1), nn.Linear(read, 3)
        self.equation, self.operands, self.mix = equation, operands, nn.Parameter(torch.rand(shape))

    def forward(self, x):
        return self.b(torch.einsum(self.equation, *self.operands(self, self.a(x), x)))


OF_THREE = {
    "gated": ("bcl,dc,bcl->bld", lambda net, y, x: (y, net.mix, net.gate(x).sigmoid()), (7, 6), 7),
    "two of them": ("bcl,bcm,dc->blmd", lambda net, y, x: (y, net.gate(x), net.mix), (7, 6), 7),
    "pooled first": ("bl,bcl,dc->bd", lambda net, y, x: (x.mean(1), y, net.mix), (7, 6), 7),
    "weight first": ("dc,bl,bcl->bd", lambda net, y, x: (net.mix, x.mean(1), y), (7, 6), 7),
    "attention": ("bcl,bcm,bdm->bld", lambda net, y, x: (y, y, net.gate(x)), (1,), 6),
    "bilinear": ("bcl,bdl,cde->ble", lambda net, y, x: (y, net.gate(x), net.mix), (6, 6, 7), 7),
}


@pytest.mark.parametrize(("equation", "operands", "shape", "read"), OF_THREE.values(), ids=OF_THREE)
def test_sums_of_three_tensors(equation, operands, shape, read):
    network = random_weights(SumOfThree(equation, operands, shape, read))
    example = torch.randn(2, 4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = gnnrl_lightning.trace(network, example)
    assert {group.width for group in graph.groups} == {6, read}
    generator = torch.Generator().manual_seed(1)
    for widths in (graph.widths, graph.widths - 1, graph.widths // 2):
        check(graph, network, (example,), widths, generator)


class LinearAttention(nn.Module):
    """Queries divided by the sum of the keys, in one sum of three tensors: a head without channels divides by zero."""

    def __init__(self):
        super().__init__()
        self.heads = 3
        self.q, self.k, self.v, self.out = (nn.Linear(12, 12) for _ in range(4))

    def forward(self, x):
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        q, k = nn.functional.elu(q) + 1, nn.functional.elu(k) + 1
        share = 1 / torch.einsum("bhnd,bhd->bhn", q, k.sum(2))
        mixed = torch.einsum("bhde,bhnd,bhn->bhne", torch.einsum("bhnd,bhne->bhde", k, v), q, share)
        return self.out(mixed.transpose(1, 2).flatten(2))


def test_heads_that_are_divided_by_a_sum_over_their_channels():
    network = random_weights(LinearAttention())
    example = torch.randn(2, 5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = gnnrl_lightning.trace(network, example)
    assert [(group.name, group.width) for group in graph.groups] == [("q", 3)]
    small = check(graph, network, (example,), torch.tensor([2]), torch.Generator().manual_seed(1))
    assert small.heads == 2 and small.v.weight.shape == (8, 12)


class Experts(nn.Module):
    """A convolution whose kernel a matrix product mixes of four, with weights of its own for each example."""

    def __init__(self):
        super().__init__()
        self.inputs, self.outputs = 6, 8
        self.a, self.attend, self.b = nn.Conv2d(3, 6, 1), nn.Linear(6, 4), nn.Conv2d(8, 5, 1)
        self.kernels, self.biases = nn.Parameter(torch.rand(4, 8, 6, 3, 3)), nn.Parameter(torch.rand(4, 8))

    def forward(self, x):
        x = self.a(x)
        share, sides = self.attend(x.mean((2, 3))).softmax(1), x.shape[2:]
        kernel = torch.mm(share, self.kernels.view(4, -1)).view(-1, self.inputs, 3, 3)
        bias = torch.mm(share, self.biases).view(-1)
        y = nn.functional.conv2d(x.view(1, -1, *sides), kernel, bias, padding=1, groups=len(x))
        return self.b(y.view(len(x), self.outputs, *sides).relu())


def test_kernels_that_are_mixed_of_experts():
    network = random_weights(Experts())
    example = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = gnnrl_lightning.trace(network, example)
    widths = {group.name: group.width for group in graph.groups}
    assert widths["a"] == 6 and 8 in widths.values()
    generator = torch.Generator().manual_seed(1)
    for kept in (graph.smallest, graph.widths - 1, graph.widths // 2):
        small = check(graph, network, (example,), kept, generator)
        assert small.kernels.shape[1:3] == (small.outputs, small.inputs)
