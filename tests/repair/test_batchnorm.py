import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gnnrl_lightning import trace
from gnnrl_lightning.calibration.moments import collect_moments
from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.repair.batchnorm import predict_batch_norm, reestimate_batch_norm
from gnnrl_lightning.repair.reconstruction import reconstruct
from gnnrl_lightning.surgery.layers import find_layers
from tests.support.networks_readers import half, traced


class Two(nn.Module):
    """Two batch norms with a dropout between them."""

    def __init__(self):
        super().__init__()
        self.first, self.convolution = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)
        self.second = nn.BatchNorm2d(4, momentum=0.3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.second(self.convolution(self.dropout(self.first(x).relu())))


@pytest.fixture
def network():
    network = Two().train()
    with torch.no_grad():
        network.first.running_mean.fill_(7)
        network.first.weight.uniform_(0.5, 2)
    return network


def statistics(x):
    """Mean and unbiased variance of each channel, as batch norms keep them."""
    return x.mean((0, 2, 3)), x.var((0, 2, 3))


def test_one_batch_gives_its_own_statistics_layer_by_layer(network):
    x = torch.randn(8, 3, 6, 6) * 3 + 1
    reestimate_batch_norm(network, [x])
    for mine, theirs in zip((network.first.running_mean, network.first.running_var), statistics(x), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)
    # What the second one reads is normalised with the batch's own statistics, and the dropout is off.
    inner = F.batch_norm(x, None, None, network.first.weight, network.first.bias, training=True)
    inner = network.convolution(inner.relu())
    for mine, theirs in zip((network.second.running_mean, network.second.running_var), statistics(inner), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_several_batches_are_averaged(network):
    batches = torch.randn(3, 8, 3, 6, 6)
    reestimate_batch_norm(network, batches)
    means, variances = zip(*(statistics(batch) for batch in batches), strict=True)
    assert torch.allclose(network.first.running_mean, torch.stack(means).mean(0), atol=1e-6)
    assert torch.allclose(network.first.running_var, torch.stack(variances).mean(0), atol=1e-6)


@pytest.mark.parametrize("examples", [257, 300, 513])
def test_what_is_left_of_the_last_batch_does_not_count_more_than_the_others(examples):
    """Nor is it a single example, of which there is no variance."""
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)).eval()
    x = torch.randn(examples, 4) * torch.linspace(1, 4, examples)[:, None]
    graph = trace(network, x[:1])
    pruner = Pruner(graph, network, x, repair="batch_norm", batch_size=256)
    repaired = pruner.prune(pruner.plan(graph.widths))
    expected = network[0](x).detach()
    torch.testing.assert_close(repaired[1].running_mean, expected.mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(repaired[1].running_var, expected.var(0), atol=0, rtol=0.02)


def test_every_call_of_a_norm_counts():
    """Of one that reads two maps in a pass, both; afterwards it is as it was, without hooks."""
    norm = nn.BatchNorm2d(3, momentum=0.3)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = norm

        def forward(self, x):
            return self.norm(x) + self.norm(2 * x)

    x = torch.randn(2, 8, 3, 6, 6)
    reestimate_batch_norm(Twice(), x)
    means = [statistics(scale * batch)[0] for batch in x for scale in (1, 2)]
    assert torch.allclose(norm.running_mean, torch.stack(means).mean(0), atol=1e-6)
    assert norm.momentum == 0.3 and not norm._forward_pre_hooks


def test_what_the_statistics_were_does_not_matter(network):
    x = torch.randn(4, 3, 6, 6)
    reestimate_batch_norm(network, [x])
    once = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    reestimate_batch_norm(network, [x])
    assert all(torch.equal(tensor, once[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
def test_modes_momenta_parameters_and_gradients_are_left_alone(network, training):
    network.train(training)
    network.dropout.train()
    before = [parameter.detach().clone() for parameter in network.parameters()]
    reestimate_batch_norm(network, [torch.randn(4, 3, 6, 6)])
    assert network.training is training and network.first.training is training and network.dropout.training
    assert (network.first.momentum, network.second.momentum) == (0.1, 0.3)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), before, strict=True))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_modes_are_restored_when_the_network_fails(network):
    with pytest.raises(RuntimeError):
        reestimate_batch_norm(network, [torch.randn(4, 5, 6, 6)])
    assert network.training and network.dropout.training and network.second.momentum == 0.3


def test_networks_without_running_statistics():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).train()
    reestimate_batch_norm(network, [torch.randn(2, 3, 4, 4)])
    assert network.training and network[1].running_mean is None
    reestimate_batch_norm(nn.Linear(2, 2), [torch.randn(2, 2)])


def calibrated(plan_of, reconstructed=False):
    """A network whose batch norm has the statistics of the images, and a pruned one with predicted statistics."""
    network, graph, images = traced("norm")
    reestimate_batch_norm(network, [images])
    plan = plan_of(graph, network)
    layers = find_layers(graph)
    moments = collect_moments(network, layers, [images], per_example=10**6)
    pruned = plan.apply(network)
    if reconstructed:
        reconstruct(network, pruned, layers, moments, plan.selection)
    predict_batch_norm(network, pruned, layers, moments, plan.selection)
    return network, pruned, images


@pytest.mark.parametrize("reconstructed", [False, True])
def test_predicted_statistics_are_those_of_the_images(reconstructed):
    _, pruned, images = calibrated(half, reconstructed)
    with torch.no_grad():
        outputs = pruned.reader(pruned.stem(images).relu())
    torch.testing.assert_close(pruned.norm.running_mean, outputs.mean((0, 2, 3)))
    torch.testing.assert_close(pruned.norm.running_var, outputs.var((0, 2, 3)), rtol=1e-6, atol=0)


def test_prediction_with_all_channels_changes_nothing():
    network, pruned, _ = calibrated(lambda graph, net: graph.plan(net, graph.widths))
    torch.testing.assert_close(pruned.norm.running_mean, network.norm.running_mean)
    torch.testing.assert_close(pruned.norm.running_var, network.norm.running_var)
