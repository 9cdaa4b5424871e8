"""Effects of groups against masks by hand, and the slopes that follow from them."""

import pytest
import torch
from torch import nn

from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.graph import trace
from gnnrl_lightning.objective.classification import TEMPERATURE
from gnnrl_lightning.surrogate import slopes
from gnnrl_lightning.surrogate.slopes import EffectMeasure, slopes_from


class Small(nn.Module):
    """A residual stream, an inner group, and a group that two layers read."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 12, 3, padding=1)
        self.outer = nn.Conv2d(12, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 16, 1)
        self.head = nn.Linear(16, 5)
        with torch.no_grad():
            self.head.weight.mul_(30)  # outputs that differ

    def forward(self, x, masks=(1.0, 1.0, 1.0)):
        """Logits; the masks multiply the channels where the stream, the inner group and the last one are read."""
        stream, inner, last = masks
        x = self.stem(x).relu()
        x = x + self.outer(self.inner(x * stream).relu() * inner)
        return self.head((self.last(x * stream).relu()).mean((2, 3)) * last)


@pytest.fixture
def pruner():
    torch.manual_seed(0)
    network, images = Small().eval(), torch.randn(20, 3, 6, 6)
    return Pruner(trace(network, images[:1]), network, images, repair="refit")


def test_effects_are_gradients_by_masks_relative_to_the_divergence(pruner, monkeypatch):
    monkeypatch.setattr(slopes, "BATCH", 8)  # three batches, the last one smaller
    widths = torch.tensor([5, 7, 10])
    assert [group.name for group in pruner.graph.groups] == ["stem", "inner", "last"]
    measured = EffectMeasure(pruner)(widths)
    network = pruner.prune(pruner.plan(widths))
    masks = [torch.ones(1, 5, 1, 1), torch.ones(1, 7, 1, 1), torch.ones(1, 10)]
    for mask in masks:
        mask.requires_grad_()
    with torch.no_grad():
        dense = (pruner.network(pruner.calibration) / TEMPERATURE).log_softmax(1)
    ours = (network(pruner.calibration, masks) / TEMPERATURE).log_softmax(1)
    divergence = (dense.exp() * (dense - ours)).sum() * TEMPERATURE**2
    gradients = torch.autograd.grad(divergence, masks)
    expected = torch.stack([gradient.abs().sum() for gradient in gradients]) / divergence.detach()
    torch.testing.assert_close(measured.float(), expected, rtol=1e-4, atol=1e-4)
    assert not any(parameter.grad is not None for parameter in pruner.network.parameters())


def test_effects_cost_the_repair_and_three_passes(pruner):
    assert EffectMeasure(pruner).examples == 20 + 3 * 20
    sliced = Pruner(pruner.graph, pruner.network, pruner.calibration, repair="none")
    assert EffectMeasure(sliced).examples == 3 * 20


def test_the_dense_network_has_no_effects_that_are_not_finite(pruner):
    assert EffectMeasure(pruner)(pruner.graph.widths).isfinite().all()


def test_slopes_fall_with_the_effect_and_are_unknown_without_one():
    found = slopes_from(torch.tensor([4, 5, 6, 7]), torch.tensor([0.0, 0.2, 1.35, 5.35]))
    assert found.values[0].isnan()
    torch.testing.assert_close(found.values[1:], torch.tensor([0.0, -0.22, -1.1], dtype=torch.float64))
    assert (found.bias.diff() >= 0).all() and (found.noise.diff() >= 0).all() and (found.noise > 0).all()
