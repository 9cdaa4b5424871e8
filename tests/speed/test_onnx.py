"""ONNX Runtime as a back end: networks of other widths are filled into a model that was exported once."""

import pytest
import torch
from onnx import ModelProto
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.exporting import onnx_runtime
from gnnrl_lightning.speed import onnx
from gnnrl_lightning.speed.options import LatencyOptions
from gnnrl_lightning.speed.timer import RealTimer
from tests.support.networks_batch_norms import NormedTwice, Tokens

CPU = torch.device("cpu")
IMAGES = torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A depthwise convolution, batch norms with statistics, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 12, 3, bias=False), nn.BatchNorm2d(12)
        self.depthwise, self.other = nn.Conv2d(12, 12, 3, groups=12, padding=1), nn.BatchNorm2d(12)
        self.last = nn.Linear(12, 4)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        return self.last((x + self.other(self.depthwise(x))).mean((2, 3)))


class Scaled(Net):
    """It has the same parameters, and another graph."""

    def forward(self, x):
        return 2 * super().forward(x)


def networks():
    """A network and three narrower ones."""
    torch.manual_seed(0)
    network = Net().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.uniform_(0.5, 1.5)
    graph = gnnrl_lightning.trace(network, IMAGES[:1])
    return [network, *(graph.plan(network, torch.tensor([width])).apply(network).eval() for width in (9, 5, 1))]


@pytest.fixture
def exports(monkeypatch):
    """A list that gets longer with each export."""
    found, export = [], onnx.as_onnx
    monkeypatch.setattr(onnx, "as_onnx", lambda *given, **named: found.append(given) or export(*given, **named))
    return found


def test_one_export_serves_all_widths_of_the_same_graph(exports):
    prepare, all_widths = onnx.OnnxRuntime(threads=1), networks()
    for network, expected in [*((each, 1) for each in all_widths), (Scaled().eval(), 2)]:
        run = prepare(network, IMAGES, "network")(IMAGES)
        torch.testing.assert_close(torch.from_numpy(run()[0]), network(IMAGES).detach(), rtol=1e-4, atol=1e-5)
        assert len(exports) == expected


def test_batch_norms_are_folded_as_in_the_file_that_is_delivered():
    network, narrow, *_ = networks()
    model = ModelProto.FromString(onnx.Template(network, IMAGES).filled(narrow, IMAGES))
    assert [node.op_type for node in model.graph.node if "Norm" in node.op_type] == []
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    assert shapes["first.weight"] == [9, 3, 3, 3] and shapes["depthwise.weight"] == [9, 1, 3, 3]


@pytest.mark.parametrize(("network", "shape"), [(NormedTwice(), (3, 6, 6)), (Tokens(), (8, 5))])
def test_norms_that_belong_to_no_layer_are_not_folded(network, shape):
    network, inputs = network.eval(), torch.randn(2, *shape)
    torch.nn.init.normal_(network.norm.running_mean)
    assert onnx.Template(network, inputs).filled(network, inputs) is not None  # it computes the same


def test_networks_and_operators_are_measured_by_onnx_runtime():
    network, narrow, *_ = networks()
    timer = RealTimer(LatencyOptions(batch_size=2, threads=1, backend="onnxruntime", cache=None), CPU, IMAGES[:1])
    timer.check(network)
    assert all(value > 0 for value in timer.networks([network, narrow]))
    graph = gnnrl_lightning.trace(network, IMAGES[:1])
    cells = [(form, 3, 8) for _, form in timer.backend.uses(graph, network)]
    assert len(cells) == 4  # two chains of convolutions, the mean and the linear layer
    assert all(value > 0 for value in timer.operators(cells[:1]))


def test_sessions_have_the_number_of_threads_that_is_asked_for(exports):
    model = onnx.Template(networks()[0], IMAGES).model.SerializeToString()
    options = onnx_runtime.session(model, 3).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)


def test_what_is_missing_or_cannot_be_is_said_in_one_line(monkeypatch):
    with pytest.raises(UserError, match=r"^latency.precision is bf16: latency.backend onnxruntime expects 32$"):
        RealTimer(LatencyOptions(backend="onnxruntime", precision="bf16"), CPU, IMAGES[:1])
    monkeypatch.setattr(onnx_runtime, "PACKAGES", ("onnx", "of_no_such_name"))
    message = r"^latency.backend onnxruntime needs of_no_such_name: pip install 'gnnrl-lightning\[onnx\]'$"
    with pytest.raises(UserError, match=message):
        RealTimer(LatencyOptions(backend="onnxruntime"), CPU, IMAGES[:1])


def test_a_model_that_onnx_runtime_refuses_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(onnx, "session", lambda *_: (_ for _ in ()).throw(RuntimeError("no kernel\nmore")))
    with pytest.raises(UserError, match=r"^latency.backend onnxruntime cannot run the network \(no kernel\): choose"):
        onnx.OnnxRuntime(1)(networks()[0], IMAGES, "network")(IMAGES)
