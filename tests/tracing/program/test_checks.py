"""What `trace` refuses before anything is exported."""

import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.errors import UserError
from tests.support.networks_code import Code

EXAMPLE = torch.randn(1, 3, 6, 6)


class Named(Code):
    def forward(self, images):
        return super().forward(images)


class Mapped(nn.Module):
    """Calls an operator for one example at a time, by a transform."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)

    def forward(self, x):
        return self.b(torch.vmap(torch.sin)(self.a(x)))


@pytest.mark.parametrize(
    ("network", "example", "message"),
    [
        (Code, EXAMPLE, "network is the class Code: give an instance"),
        (Code().state_dict(), EXAMPLE, "network is a dictionary of weights"),
        (lambda x: x, EXAMPLE, "network is a function"),
        (nn.Sequential(nn.ReLU()), EXAMPLE, "has no parameters"),
        (nn.Sequential(nn.LazyConv2d(4, 3)), EXAMPLE, "lazy layers without weights"),
        (nn.Sequential(nn.PReLU()), EXAMPLE, "has no MACs"),
        (nn.Sequential(torch.jit.script(nn.Conv2d(3, 4, 1))), EXAMPLE, "its module 0 is compiled by TorchScript"),
        (Code(), None, "it is None: give the network's input"),
        (Code(), (1, 3, 6, 6), r"it is the shape \(1, 3, 6, 6\): give"),
        (Code(), EXAMPLE[:, :2], r"Code refuses an input of shape \(1, 2, 6, 6\): "),
        (Named(), {"x": EXAMPLE}, "a dictionary has arguments by name"),
        (Mapped(), EXAMPLE, r"torch.vmap cannot be traced.*; use a loop"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_what_cannot_be_traced_is_refused_in_one_line(network, example, message):
    with pytest.raises(UserError, match=message) as caught:
        gnnrl_lightning.trace(network, example)
    assert "\n" not in str(caught.value)


class Nodes(nn.Module):
    """A graph whose nodes come first: its example has no dimension of examples."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
        self.register_buffer("adjacency", torch.rand(5, 5))

    def forward(self, x):
        return self.b(self.adjacency @ self.a(x).relu())


def test_examples_that_depend_on_each_other_are_refused():
    with pytest.raises(UserError, match=r"shape \(1, 4\).*; it takes all of example_inputs together, .*: expected ind"):
        gnnrl_lightning.trace(Nodes(), torch.zeros(5, 4))
    graph = gnnrl_lightning.trace(Nodes(), torch.zeros(1, 5, 4))
    assert [group.name for group in graph.groups] == ["a"]


class Quantisable(nn.Module):
    """A residual that is ready to be prepared for quantisation, and still computes in float."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.sum = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 4, 1), torch.ao.nn.quantized.FloatFunctional()
        self.c = nn.Conv2d(4, 3, 1)

    def forward(self, x):
        return self.sum.add_relu(self.a(x), self.c(self.b(x)))


def test_sums_that_quantisation_may_replace_later():
    graph = gnnrl_lightning.trace(Quantisable(), EXAMPLE)
    assert [group.name for group in graph.groups] == ["b"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("converted", [False, True])
def test_quantised_networks_are_refused_with_the_order_of_steps(converted):
    quantization = pytest.importorskip("torch.ao.quantization")
    network = nn.Sequential(quantization.QuantStub(), nn.Conv2d(3, 4, 3), quantization.DeQuantStub()).train()
    network.qconfig = quantization.get_default_qat_qconfig("x86")
    quantization.prepare_qat(network, inplace=True)
    if converted:
        network = quantization.convert(network.eval())
    with pytest.raises(UserError, match=r"it has layers of torch\.ao\.nn\.\w+, .*give the network as it is before"):
        gnnrl_lightning.trace(network, EXAMPLE)
