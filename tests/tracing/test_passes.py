"""Networks whose code is another one in training mode: what they keep, why, and that the pruned ones train."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gnnrl_lightning
from gnnrl_lightning.tracing.passes import reads_training
from tests.support.exactness import check, random_weights, random_widths, train_one_step

X = (torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),)


class Trained(nn.Module):
    """Two convolutions, between which `extra` runs in training mode only."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 4)

    def extra(self, y):
        return y

    def forward(self, x):
        y = self.norm(self.a(x)).relu()
        if self.training:
            y = self.extra(y)
        return self.head(self.b(y).relu().mean((2, 3)))


class Alternative(Trained):
    """A layer of its own."""

    def __init__(self):
        super().__init__()
        self.other = nn.Conv2d(8, 8, 1)

    def extra(self, y):
        return self.other(y)


class Average(Trained):
    """A buffer that only training writes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("average", torch.zeros(8))

    def extra(self, y):
        self.average.mul_(0.9).add_(y.detach().mean((0, 2, 3)), alpha=0.1)
        return y


class Noise(Trained):
    """Noise of the tensor's own size, and dropout of channels."""

    def extra(self, y):
        return F.dropout2d(y + torch.randn(1, y.shape[1], 1, 1, dtype=y.dtype), 0.3, self.training)


class Shared(Trained):
    """The layer that reads the second convolution reads the first one as well."""

    def extra(self, y):
        return y + F.linear(y.mean((2, 3)), self.head.weight).mean()


class ConstantView(Trained):
    def extra(self, y):
        return y + y.view(-1, 2, 4, 6, 6).mean((3, 4)).flatten(1)[:, :, None, None]


class ConstantNoise(Trained):
    def extra(self, y):
        return y + torch.randn(8, 1, 1, dtype=y.dtype)


class Asserting(Trained):
    def extra(self, y):
        if y.shape[1] != 8:
            raise ValueError("eight channels")
        return y


class ByChance(Trained):
    """A branch that `torch.export` cannot read."""

    def extra(self, y):
        return y * y.new_ones(8, 1, 1) if float(torch.rand(())) < 2 else y


class NeedsTargets(Trained):
    """Its loss needs more than its input: nothing is known about training."""

    def forward(self, x, targets=None):
        y = super().forward(x)
        return F.cross_entropy(y, targets) if self.training else y


BOTH = {"a": 8, "b": 8}


@pytest.mark.parametrize(
    ("kind", "groups", "why", "line"),
    [
        (Trained, BOTH, "", ""),
        (Alternative, BOTH, "", ""),
        (Average, BOTH, "", ""),
        (Noise, BOTH, "", ""),
        (Shared, {"a": 8}, "", ""),
        (
            ConstantView,
            {"b": 8},
            "in training mode, .*view\\(-1, 2, 4, 6, 6\\) has a size",
            "y.view",
        ),
        (ConstantNoise, {"b": 8}, "combined with values that cannot be pruned", "self.extra(y)"),
        (Asserting, {"b": 8}, "in training mode, .*eight channels", "raise ValueError"),
        (ByChance, {"b": 8}, "in training mode, .*fails", "y.new_ones"),
    ],
)
def test_what_training_reads_is_pruned_or_kept(kind, groups, why, line):
    network = random_weights(kind())
    graph = gnnrl_lightning.trace(network, X)
    assert {group.name: group.width for group in graph.groups} == groups
    kept = [item for item in graph.reasons if item.operator not in ("input", "output")]
    assert len(kept) == bool(why)
    for item in kept:
        assert item.groups == ("a",) and line in item.source and re.search(why, item.reason)
    generator = torch.Generator().manual_seed(0)
    for widths in (graph.smallest, random_widths(graph, generator)):
        train_one_step(check(graph, network, X, widths, generator), X)


def test_a_network_that_needs_targets_is_traced_as_it_is_in_evaluation_mode():
    graph = gnnrl_lightning.trace(NeedsTargets(), X[0].float())
    assert {group.name: group.width for group in graph.groups} == BOTH


class TargetsAndLayer(NeedsTargets, Alternative):
    pass


def test_parameters_of_a_training_that_needs_targets_are_refused():
    with pytest.raises(gnnrl_lightning.UserError, match=r"in training mode, which alone uses other\.weight"):
        gnnrl_lightning.trace(TargetsAndLayer(), X[0].float())


def test_statistics_of_the_network_stay():
    network = ByChance()
    gnnrl_lightning.trace(network, X[0].float())
    assert network.norm.num_batches_tracked == 0 and not network.norm.running_mean.any()


def test_only_code_of_the_users_own_counts():
    assert not reads_training(nn.Sequential(nn.BatchNorm2d(3), nn.Dropout()))
    assert reads_training(nn.Sequential(Noise()))


class PassedOn(nn.Module):
    def forward(self, x):
        return nn.functional.batch_norm(F.dropout(x, 0.1, self.training), None, None, training=self.training)


class PassedOnAndRead(nn.Module):
    def forward(self, x):
        return F.dropout(x, training=self.training) if self.training else x[:, :3]


class GivenToOthers(nn.Module):
    def forward(self, x):
        return tile(x, self.training)


class Computed(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.1, not self.training or len(x) > 1)


def tile(x, twice):
    return torch.cat([x, x], 1) if twice else x


@pytest.mark.parametrize(
    ("kind", "reads"), [(PassedOn, False), (PassedOnAndRead, True), (GivenToOthers, True), (Computed, True)]
)
def test_a_mode_that_is_only_passed_to_functions_of_torch_does_not_count(kind, reads):
    assert reads_training(kind()) is reads
