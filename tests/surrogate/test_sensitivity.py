import copy

import pytest
import torch
from torch.nn.functional import kl_div, log_softmax

import gnnrl_lightning
from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.networks.cifar_resnet import CIFARResNet
from gnnrl_lightning.repair.batchnorm import reestimate_batch_norm
from gnnrl_lightning.surrogate.sensitivity import (
    TABLES,
    ErrorTable,
    reconstruction_table,
    sensitivity_images,
    sensitivity_table,
    widths_at,
)

RATIOS = (0.25, 0.5)


@pytest.fixture(scope="module")
def pruner():
    torch.manual_seed(0)
    network = CIFARResNet(1, num_classes=4).eval()  # ResNet-8
    images = torch.randn(48, 3, 8, 8)
    reestimate_batch_norm(network, [images])
    graph = gnnrl_lightning.trace(network, images[:1])
    return Pruner(graph, network, images, repair="reconstruction")


def test_square_roots_are_interpolated():
    table = ErrorTable.interpolate(torch.tensor([8, 4]), RATIOS, torch.tensor([[9.0, 4.0], [1.0, 1.0]]))
    # 8 channels: roots 3 at 2, 2 at 4, 0 at 8; narrower than 2 as between 2 and 4.
    by_hand = torch.tensor([4.0, 3.5, 3.0, 2.5, 2.0, 1.5, 1.0, 0.5, 0.0]) ** 2
    torch.testing.assert_close(table.errors[0], by_hand.double())
    # 4 channels: 1 at 1 and 2, 0 at 4 and where there are no more channels.
    torch.testing.assert_close(table.errors[1], torch.tensor([1, 1, 1, 0.25, 0, 0, 0, 0, 0]).double())
    widths = torch.tensor([[8, 4], [3, 3], [2, 1]])
    torch.testing.assert_close(table.of_groups(widths)[1], torch.tensor([6.25, 0.25]).double())
    assert table(widths).tolist() == [0.0, 6.5, 10.0]


def test_errors_never_rise_with_the_width():
    table = ErrorTable.interpolate(torch.tensor([16]), (0.25, 0.5, 0.75), torch.tensor([[1.0, 4.0, 2.0]]))
    assert (table.errors[0].diff() <= 0).all() and table.errors[0, 4] == 4


def test_widths_at_a_ratio():
    assert widths_at(torch.tensor([1, 3, 16]), 0.5).tolist() == [1, 2, 8]
    assert widths_at(torch.tensor([1, 3, 16]), 0.01).tolist() == [1, 1, 1]


def narrowed(pruner, group, ratio):
    widths = pruner.graph.widths.clone()
    widths[group] = widths_at(pruner.graph.widths, ratio)[group]
    return pruner.prune(pruner.plan(widths))


def test_sensitivity_is_the_divergence_of_one_narrowed_group(pruner):
    images = pruner.calibration
    table = sensitivity_table(pruner, images, RATIOS)
    with torch.no_grad():
        dense = log_softmax(pruner.network(images), 1)
        for group in range(len(pruner.graph.groups)):
            for column, ratio in enumerate(RATIOS):
                outputs = log_softmax(narrowed(pruner, group, ratio)(images), 1)
                expected = kl_div(outputs, dense, log_target=True, reduction="batchmean").double()
                torch.testing.assert_close(table.measured[group, column], expected, rtol=1e-3, atol=1e-5)
    assert table.images == len(images) * (1 + len(pruner.graph.groups) * len(RATIOS))


def test_images_are_known_before_the_table_is_made(pruner):
    """Also where a ratio leaves a group whole: one pass less."""
    images, dense = pruner.calibration, pruner.graph.widths
    made = {name: method.make(pruner, lambda: None) for name, method in TABLES.items()}
    for name, method in TABLES.items():
        assert made[name].images == method.images(dense, len(images))
        assert made[name].passes == ("moments",)
    assert TABLES["sensitivity"].images(dense, 48) == 48 * (1 + 4 * len(dense))
    near = (0.5, 0.98)  # of 16 channels 16, of 32 31, of 64 63
    narrowed = len(dense) + int((dense > 16).sum())
    assert 0 < narrowed < 2 * len(dense)
    assert sensitivity_images(dense, 48, near) == 48 * (1 + narrowed)
    assert sensitivity_table(pruner, images, near).images == 48 * (1 + narrowed)
    assert TABLES["reconstruction"].images(dense, 48) == 0


def test_reconstruction_errors_are_shares_of_the_readers_variance(pruner):
    table = reconstruction_table(pruner, RATIOS)
    assert (table.measured > 0).all()
    assert (table.measured[:, 0] >= table.measured[:, 1]).all()
    readers = torch.tensor([sum(m.role == "input" for m in group.members) for group in pruner.graph.groups])
    # A reader that is left nothing loses all its variance.
    assert (table.measured <= readers[:, None] + 1e-3).all()


def test_a_channel_that_repeats_another_is_missed_by_nobody(pruner):
    """Two equal filters: with one gone, the reader's other weight takes its place and the error is (nearly) nothing."""
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

    errors = []
    for net in (network, pruner.network):
        table = reconstruction_table(Pruner(pruner.graph, net, pruner.calibration, first_half), (0.5,))
        errors.append(float(table.measured[group, 0]))
    assert errors[0] < 0.03 and errors[0] < errors[1] / 5


def test_statistics_are_finite(pruner):
    statistics = reconstruction_table(pruner).statistics
    assert statistics.shape[0] == len(pruner.graph.groups) and statistics.isfinite().all()
