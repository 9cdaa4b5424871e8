"""torch.compile as a back end; it compiles nothing here, but for the slow test."""

from functools import partial

import pytest
import torch
from torch import nn

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.speed.backend import NETWORK
from gnnrl_lightning.speed.compiled import Compiled, compiled_alone
from gnnrl_lightning.speed.options import LatencyOptions
from gnnrl_lightning.speed.timer import RealTimer

CPU = torch.device("cpu")
X = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))

    def forward(self, x):
        return self.layers(x)


def test_no_network_is_compiled_again_for_the_sake_of_others_of_its_class(monkeypatch):
    """More than eight, after which `torch.compile` gives up."""
    compiled, limit = [], torch._dynamo.config.recompile_limit

    def noted(graph, inputs):
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=noted))
    nets = [Net(width) for width in range(1, limit + 4)]
    functions = [compiled_alone(net) for net in nets]
    for _ in range(2):
        for net, function in zip(nets, functions, strict=True):
            assert torch.equal(function(X), net(X))
    assert len(compiled) == len(nets) > limit


def test_networks_are_compiled_before_they_are_measured_and_operators_are_not(monkeypatch):
    calls = []
    monkeypatch.setattr(torch, "compile", lambda function, **_: lambda x: calls.append(x) or function(x))
    prepare, net = Compiled(threads=1), Net(2)
    run = prepare(net, X, NETWORK)(X)
    assert len(calls) == 1 and torch.equal(run(), net(X)) and len(calls) == 2
    prepare(net.layers[0], (X,), "linear")((X,))()
    assert len(calls) == 2


def test_a_missing_compiler_is_said_in_one_line(monkeypatch):
    def fails(function, **_):
        raise RuntimeError("No working C++ compiler found\nmore")

    monkeypatch.setattr(torch, "compile", fails)
    message = r"^latency.backend compile: torch.compile fails here \(No working C\+\+ compiler found\): install a C\+\+"
    with pytest.raises(UserError, match=message):
        RealTimer(LatencyOptions(backend="compile"), CPU, X[:1])


@pytest.mark.slow
def test_compiled_networks_are_measured():
    timer = RealTimer(LatencyOptions(batch_size=2, threads=1, backend="compile", cache=None), CPU, X[:1])
    timer.check(Net(8))
    assert all(value > 0 for value in timer.networks([Net(8), Net(2)]))
