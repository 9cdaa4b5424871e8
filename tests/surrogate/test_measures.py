import copy

import pytest
import torch
from torch.nn.functional import kl_div, log_softmax

import gnnrl_lightning
from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks.cifar_resnet import CIFARResNet
from gnnrl_lightning.objective.classification import TEMPERATURE
from gnnrl_lightning.repair.batchnorm import reestimate_batch_norm
from gnnrl_lightning.surrogate import measures
from gnnrl_lightning.surrogate.measures import (
    SENSITIVITIES,
    SensitivityMeasure,
    measure_outputs,
    measure_reconstruction,
    outputs_examples,
)
from gnnrl_lightning.surrogate.sensitivity import NO_CHANNEL, widths_at

RATIOS = (0.25, 0.5)


@pytest.fixture(scope="module")
def pruner():
    torch.manual_seed(0)
    network = CIFARResNet(1, num_classes=4).eval()  # ResNet-8
    images = torch.randn(48, 3, 8, 8)
    reestimate_batch_norm(network, [images])
    graph = gnnrl_lightning.trace(network, images[:1])
    return Pruner(graph, network, images, repair="reconstruction")


def narrowed(pruner, group, ratio):
    widths = pruner.graph.widths.clone()
    widths[group] = widths_at(pruner.graph.widths, ratio)[group]
    return pruner.prune(pruner.plan(widths))


def test_outputs_is_the_divergence_of_one_narrowed_group(pruner):
    images = pruner.calibration
    measured = measure_outputs(pruner, RATIOS)
    with torch.no_grad():
        dense = pruner.network(images)
        for group in range(len(pruner.graph.groups)):
            for column, ratio in enumerate(RATIOS):
                outputs = narrowed(pruner, group, ratio)(images)
                softened = (log_softmax(logits / TEMPERATURE, 1) for logits in (outputs, dense))
                expected = TEMPERATURE**2 * kl_div(*softened, log_target=True, reduction="batchmean").double()
                torch.testing.assert_close(measured[group, column], expected, rtol=1e-3, atol=1e-5)
    assert outputs_examples(pruner.graph.widths, 48, RATIOS) == 48 * (1 + len(pruner.graph.groups) * len(RATIOS))


def test_images_are_known_before_anything_is_measured(pruner, monkeypatch):
    """Also where a ratio leaves a group whole: one pass less."""
    images, dense = pruner.calibration, pruner.graph.widths
    for row in SENSITIVITIES.values():
        groups = []
        made = row.make(pruner, lambda groups=groups: groups.append(None))
        assert made.examples == row.examples(dense, len(images)) and made.passes == row.passes == ("moments",)
        assert len(groups) == len(dense)
    assert SENSITIVITIES["outputs"].examples(dense, 48) == 48 * (1 + 5 * len(dense))
    near = (0.5, 0.98)  # of 16 channels 16, of 32 31, of 64 63
    narrowed = len(dense) + int((dense > 16).sum())
    assert 0 < narrowed < 2 * len(dense)
    assert outputs_examples(dense, 48, near) == 48 * (1 + narrowed)
    passed = []
    monkeypatch.setattr(measures, "for_inference", lambda network, layers, last: network)
    assert pruner.channels_last  # which takes a pass
    with torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: passed.append(len(inputs[0])) if isinstance(module, type(pruner.network)) else None
    ):
        measure_outputs(pruner, near)
    assert sum(passed) == 48 * (1 + narrowed)
    assert SENSITIVITIES["reconstruction"].examples(dense, 48) == 0


def test_reconstruction_losses_are_shares_of_the_readers_variance(pruner):
    measured = measure_reconstruction(pruner, RATIOS)
    assert (measured > 0).all()
    assert (measured[:, 0] >= measured[:, 1]).all()
    readers = torch.tensor([sum(m.role == "input" for m in group.members) for group in pruner.graph.groups])
    # A reader that is left nothing loses all its variance.
    assert (measured <= readers[:, None] + 1e-3).all()


def test_a_channel_that_repeats_another_is_missed_by_nobody(pruner):
    """Two equal filters: with one gone, the reader's other weight takes its place and the loss is (nearly) nothing."""
    network = copy.deepcopy(pruner.network)
    group = next(i for i, group in enumerate(pruner.graph.groups) if group.name.endswith(".conv1"))
    name = pruner.graph.groups[group].name
    conv, norm = (network.get_submodule(path) for path in (name, name.replace("conv1", "bn1")))
    with torch.no_grad():
        half = conv.weight.shape[0] // 2
        for tensor in (conv.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor[half:] = tensor[:half]

    def first_half(network, parameters, calibration):
        scores = {key: torch.ones_like(value) for key, value in parameters.items()}
        scores[f"{name}.weight"][half:] = 0
        return scores

    losses = []
    for net in (network, pruner.network):
        measured = measure_reconstruction(Pruner(pruner.graph, net, pruner.calibration, first_half), (0.5,))
        losses.append(float(measured[group, 0]))
    assert losses[0] < 0.03 and losses[0] < losses[1] / 5


def test_statistics_are_finite(pruner):
    statistics = SENSITIVITIES["reconstruction"].make(pruner).statistics
    assert statistics.shape[0] == len(pruner.graph.groups) and statistics.isfinite().all()


def by_width(pruner, ratios, advance):
    """A measure of the user's own: narrow groups matter less."""
    return pruner.graph.widths[:, None] * (1 - torch.tensor(ratios))


def test_a_measure_by_its_import_path(pruner):
    """A plain function may read the images: one pass is counted."""
    made = SENSITIVITIES.find(f"{__name__}.by_width").make(pruner)
    dense = pruner.graph.widths
    assert (made.examples, made.passes) == (48, ())
    assert float(made(dense)) == 0 and float(made(dense // 2)) > 0
    free = SensitivityMeasure(by_width, examples=lambda dense, examples: 0).make(pruner)
    assert free.examples == 0 and torch.equal(free.losses, made.losses)


@pytest.mark.parametrize("measured", [torch.zeros(2, 2), torch.full((7, 4), torch.nan)])
def test_a_measure_of_another_shape_or_not_finite_is_refused(pruner, measured):
    assert len(pruner.graph.widths) != 2
    with pytest.raises(UserError, match=r"was measured: expected finite losses \(\d+, 5\)"):
        SensitivityMeasure(lambda pruner, ratios, advance: measured).make(pruner)


def test_groups_that_may_go_are_measured_without_a_channel(pruner):
    """One more pass for each of the three blocks; the losses at one channel and above are the same."""
    graph = pruner.graph
    allowed = Budget(macs=0.5, min_width=0).on(graph).allowed
    assert int(allowed.removable.sum()) == 3
    with_none, without = (SENSITIVITIES["outputs"].make(pruner, allowed=given) for given in (allowed, None))
    assert with_none.ratios == (NO_CHANNEL, *without.ratios)
    assert with_none.examples == without.examples + 3 * 48
    assert with_none.examples == SENSITIVITIES["outputs"].charged(allowed, 48)
    torch.testing.assert_close(with_none.losses[:, 1:], without.losses[:, 1:])
    for group in allowed.removable.nonzero()[:, 0].tolist():
        widths = graph.widths.index_fill(0, torch.tensor([group]), 0)
        with torch.no_grad():
            distance = pruner.objective.distance(
                pruner.prune(pruner.plan(widths))(pruner.calibration), pruner.network(pruner.calibration)
            )
        expected = max(float(distance.sum()) / 48, float(without.losses[group, 1]))
        assert float(with_none(widths)) == pytest.approx(expected, rel=1e-3)
    assert torch.equal(with_none.losses[~allowed.removable], without.losses[~allowed.removable])
    reconstruction = SENSITIVITIES["reconstruction"].make(pruner, allowed=allowed)
    assert reconstruction.examples == 0
    torch.testing.assert_close(reconstruction.losses[allowed.removable, 0], torch.ones(3, dtype=torch.float64))
