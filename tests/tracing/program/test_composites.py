"""Operators without a rule that are composed of others."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gnnrl_lightning
from gnnrl_lightning.tracing.program.composites import enter_composites
from gnnrl_lightning.tracing.walk import find_rule, operator_name
from tests.support.exactness import check, random_weights, random_widths
from tests.support.networks_code import Code, macs

X = torch.randn(1, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Composed(Code):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def between(self, x):
        return self.function(x)


FUNCTIONS = {
    "rot90": lambda x: x.rot90(1, (2, 3)),
    "fliplr": lambda x: x.transpose(1, 2).flip(2).fliplr().transpose(1, 2),
    "fftshift": lambda x: torch.fft.fftshift(x, dim=(2, 3)),
    "cumprod": lambda x: x.sigmoid().cumprod(2),
    "logcumsumexp": lambda x: x.logcumsumexp(3),
    "cummax": lambda x: x.cummax(2)[0] + x.cummin(3).values,
    "median": lambda x: x - x.median(2, keepdim=True)[0] + x.nanmedian(3, keepdim=True)[0],
    "ranks": lambda x: x - x.kthvalue(2, dim=2, keepdim=True)[0] + x.mode(2, keepdim=True)[0],
    "aminmax": lambda x: x / (1 + x.aminmax(dim=2, keepdim=True)[1].abs()),
    "floor_divide": lambda x: x + torch.floor_divide(x, 0.3),
    "isclose": lambda x: x * torch.isclose(x, x.relu()),
    "special": lambda x: torch.special.expit(x) + torch.special.log_ndtr(x),
    "conjugate": lambda x: (torch.fft.fft2(x) * torch.fft.fft2(x).conj()).real,
    "bucketize": lambda x: x * torch.bucketize(x, torch.tensor([0.0, 0.5], dtype=x.dtype)),
    "count_nonzero": lambda x: x / (1 + torch.count_nonzero(x.relu(), dim=(2, 3))[..., None, None]),
    "diag_embed": lambda x: x + torch.diag_embed(x.mean(3)),
    "trapezoid": lambda x: x + torch.trapezoid(x, dim=2)[:, :, None],
    "matrix_norm": lambda x: x / torch.linalg.matrix_norm(x)[..., None, None],
    "inverse": lambda x: x + torch.linalg.inv(x.mT @ x + torch.eye(4, dtype=x.dtype)),
    "decompositions": lambda x: x + torch.linalg.svdvals(x)[..., None] + torch.linalg.det(x)[..., None, None],
    "triangular": lambda x: x + torch.linalg.qr(x, mode="r")[1].abs(),
    "matrix_exp": lambda x: x + torch.matrix_exp(0.1 * x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_channels_pass_through_functions_of_positions(name):
    network = random_weights(Composed(FUNCTIONS[name]))
    graph = gnnrl_lightning.trace(network, X)
    assert [group.name for group in graph.groups] == ["a", "b"]
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        check(graph, network, (X,), random_widths(graph, generator), generator)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.rot90(1, (1, 2)).rot90(-1, (1, 2)) + x.sigmoid().cumprod(1),
        lambda x: x - x.median(1, keepdim=True)[0],
        lambda x: x.cummax(1)[0],
        lambda x: x + torch.linalg.svdvals(x.transpose(1, 2)).sum(-1)[:, None, :, None],
    ],
)
def test_channels_that_are_combined_are_kept(function):
    graph = gnnrl_lightning.trace(random_weights(Composed(function)), X)
    assert [group.name for group in graph.groups] == ["b"]


class Grid(nn.Module):
    """A grid of positions, made by a composite, before views and sums of the code's own."""

    def __init__(self):
        super().__init__()
        self.width, self.fc, self.out = 16, nn.Linear(12, 16), nn.Linear(16, 3)

    def forward(self, x):
        i, j = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
        product = torch.outer(torch.arange(4), torch.arange(4))
        y = self.fc(x).relu().view(len(x), -1, self.width)
        return self.out(y.sum(1)) + (i + j + product).to(x.dtype).mean()


def test_what_a_composite_calls_is_no_call_of_the_code():
    network, example = random_weights(Grid()), torch.randn(1, 6, 12, dtype=torch.float64)
    graph = gnnrl_lightning.trace(network, example)
    assert [group.name for group in graph.groups] == ["fc"]
    check(graph, network, (example,), torch.tensor([5]), torch.Generator().manual_seed(0))


def test_an_operator_without_a_kernel_on_the_meta_device_costs_nothing():
    network = Composed(lambda x: torch.fake_quantize_per_tensor_affine(x.float(), 0.1, 0, 0, 255).to(x.dtype))
    graph = gnnrl_lightning.trace(network, X.float())
    assert [group.name for group in graph.groups] == ["a", "b"]
    assert int(graph.cost.macs(graph.widths)) == macs()


def test_what_has_a_rule_stays_whole_and_lines_are_kept():
    def whole(target):
        return find_rule(target) is not None

    class Turned(nn.Module):
        def forward(self, x):
            return F.gelu(F.conv2d(x, x)).rot90(1, (2, 3))

    program = torch.export.export(Turned(), (torch.zeros(1, 1, 4, 4),))
    enter_composites(program.graph, whole)
    made = [node for node in program.graph.nodes if node.op == "call_function"]
    names = [operator_name(node.target) for node in made]
    assert names[:2] == ["conv2d", "gelu"] and "rot90" not in names and {*names[2:]} <= {"transpose", "permute", "flip"}
    assert all("rot90" in node.meta["stack_trace"] and node.meta["val"].shape == (1, 1, 1, 1) for node in made[2:])
    program.graph.lint()
