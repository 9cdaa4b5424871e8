"""Comparison of pruned and masked networks: which faults show, whatever the weights and the examples are."""

import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks.cifar_resnet import resnet20
from gnnrl_lightning.surgery.exactness import exactness_fault, randomised
from gnnrl_lightning.tracing.axes import Selection
from tests.support.exactness import half
from tests.support.networks_code import Code
from tests.support.networks_zoo import Pair


class Scaled(Pair):
    """A scale by the number of channels and one runs at any width, but is another function."""

    def __init__(self, bias=True):
        super().__init__(6, 6)
        self.a, self.b = nn.Conv2d(3, 6, 3, bias=bias), nn.Conv2d(6, 5, 3, bias=bias)

    def features(self, x):
        x = self.a(x)
        return self.b(x / (x.shape[1] + 1))


def test_code_that_depends_on_the_width_freezes_exactly_its_group():
    graph = gnnrl_lightning.trace(Scaled(), torch.randn(1, 3, 8, 8))
    assert [group.name for group in graph.groups] == ["b"]
    (group,) = (group for group in graph.frozen if group.name == "a")
    assert group.operator == "self-test" and "away from the masked dense network" in group.reason


def test_the_self_test_does_not_depend_on_the_examples_values():
    """Without biases a black image is zero everywhere: every fault would pass."""
    graph = gnnrl_lightning.trace(Scaled(bias=False), torch.zeros(1, 3, 8, 8))
    assert [group.name for group in graph.groups] == ["b"]


def test_noise_in_the_code_is_the_same_in_both_networks():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)

        def forward(self, x):
            return self.b(self.a(x + torch.randn_like(x)))

    assert [group.name for group in gnnrl_lightning.trace(Noisy(), torch.rand(1, 3, 8, 8)).groups] == ["a"]


def test_inputs_that_a_network_does_not_take_are_the_users():
    """Logarithms of noise are not numbers."""

    class Logarithms(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)

        def forward(self, x):
            return self.b(self.a(x.log()))

    graph = gnnrl_lightning.trace(Logarithms(), torch.full((1, 3, 8, 8), 2.0))
    assert [group.name for group in graph.groups] == ["a"]


class SinglePrecision(Code):
    def between(self, x):
        return x.float()


def test_a_network_that_fails_in_float64_is_refused_in_one_line():
    message = r"fails in float64 with random weights and inputs \(networks_code.py:\d+: .* self_test=False"
    with pytest.raises(UserError, match=message) as caught:
        gnnrl_lightning.trace(SinglePrecision(), torch.randn(1, 3, 6, 6))
    assert "\n" not in str(caught.value)


def test_the_exactness_witness():
    network, inputs = resnet20().eval(), (torch.zeros(1, 3, 8, 8),)
    graph = gnnrl_lightning.trace(network, inputs, self_test=False)
    selection, _ = half(graph)
    assert exactness_fault(network, inputs, graph.cuts, selection, torch.Generator()) is None
    # The last statistics of the third stream (group 9) take the slices of an inner group (11) of the same width.
    wrong = dict(graph.cuts)
    wrong["layer3.2.bn2.weight"] = wrong["layer3.2.bn1.weight"]
    assert graph.groups[9].name == "layer3.0.conv2" and graph.groups[11].name == "layer3.2.conv1"
    other = [kept + (i == 9) for i, kept in enumerate(selection.kept)]
    shifted = Selection(other, graph.widths.tolist())
    assert exactness_fault(network, inputs, graph.cuts, shifted, torch.Generator()) is None
    message = exactness_fault(network, inputs, wrong, shifted, torch.Generator())
    assert message is not None and "away from the masked dense network's" in message


def test_random_weights_leave_nothing_dead():
    """A last batch norm that starts at zero (as in many training recipes) would hide every fault behind it."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    nn.init.zeros_(network[1].weight)
    other = randomised(network, torch.Generator().manual_seed(0))
    assert all((tensor != 0).all() for tensor in other.parameters())
    assert (other[1].running_var > 0).all() and other[1].num_batches_tracked == 0
    assert other[0].weight.dtype == torch.float64 and network[0].weight.dtype == torch.float32
    assert (network[1].weight == 0).all()


def test_tensors_without_a_type_are_those_of_the_weights():
    class Added(Code):
        def between(self, x):
            return torch.ones(len(x), 1, 6, 6)[..., :4, :4] @ x

    graph = gnnrl_lightning.trace(Added(), torch.zeros(1, 3, 6, 6))
    assert [group.name for group in graph.groups] == ["a", "b"]
    assert torch.get_default_dtype() == torch.float32


def test_filters_without_negative_values_stay_so():
    """Their output has a logarithm."""

    class Filters(Code):
        def __init__(self):
            super().__init__()
            self.register_buffer("bank", torch.rand(6, 6))

        def forward(self, x):
            return super().forward(torch.log(x.square() @ self.bank + 1e-6))

    graph = gnnrl_lightning.trace(Filters(), torch.rand(1, 3, 6, 6))
    assert [group.name for group in graph.groups] == ["a", "b"]
    drawn = randomised(Filters(), torch.Generator().manual_seed(0))
    assert drawn.bank.min() >= 0 > drawn.a.weight.min()


class NonNegative(nn.Module):
    """A parameter that is stored as a square root, with a lower limit: as codecs of images write it."""

    def __init__(self, minimum=0.0):
        super().__init__()
        self.register_buffer("pedestal", torch.tensor([2.0**-36]))
        self.register_buffer("bound", torch.tensor([(minimum + 2.0**-36) ** 0.5]))

    def forward(self, x):
        return torch.max(x, self.bound) ** 2 - self.pedestal


class DivisiveNormalised(Code):
    """Generalised divisive normalisation: every channel is divided by a weighted norm of all."""

    def __init__(self):
        super().__init__()
        self.to_beta, self.to_gamma = NonNegative(1e-6), NonNegative()
        self.beta, self.gamma = nn.Parameter(torch.ones(8)), nn.Parameter((0.1 * torch.eye(8)).sqrt())

    def between(self, x):
        gamma = self.to_gamma(self.gamma)[:, :, None, None]
        return x * torch.rsqrt(nn.functional.conv2d(x.square(), gamma, self.to_beta(self.beta)))


def test_buffers_that_the_code_needs_keep_their_values_where_others_give_no_numbers():
    """With a random lower limit, the norm of channels would be the square root of a negative number."""
    graph = gnnrl_lightning.trace(DivisiveNormalised(), torch.rand(1, 3, 6, 6))
    assert [group.name for group in graph.groups] == ["a", "b"]
    kept = randomised(DivisiveNormalised(), torch.Generator().manual_seed(0), buffers=False)
    assert kept.to_beta.bound.equal(DivisiveNormalised().to_beta.bound.double()) and kept.beta.std() > 0
