"""Evaluation on a separate device, without any mix-up with the CPU."""

import copy

import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.data import ImageSet
from gnnrl_lightning.evaluation.evaluator import Evaluator
from gnnrl_lightning.networks import mobilenet_v1, resnet20
from gnnrl_lightning.objective import Classification
from gnnrl_lightning.repair.table import REPAIRS
from gnnrl_lightning.surgery.exactness import randomised
from gnnrl_lightning.surrogate.measures import measure_outputs, measure_reconstruction
from tests.support.simulated_device import SIMULATED, Remote, SimulatedDevice

SENT_FOR_A_LAYER = {"none": 0, "batch_norm": 0, "refit": 1, "predicted_batch_norm": 2, "reconstruction": 4}
IMPORTANCES = ("l2", "taylor", "surgeon")


def network_of(make):
    return randomised(make(), torch.Generator().manual_seed(0)).float().eval()


def images(count, seed=0):
    return torch.randint(256, (count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def normalize(pixels):
    return pixels.float() / 255


def pruner_on(device, make=resnet20, **options):
    network = network_of(make)
    graph = gnnrl_lightning.trace(network, normalize(images(1)), self_test=False)
    moved = copy.deepcopy(network)
    if device == SIMULATED:
        for module in moved.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                module.register_parameter(name, nn.Parameter(Remote(parameter.detach())))
            for name, buffer in list(module.named_buffers(recurse=False)):
                module.register_buffer(name, Remote(buffer))
    calibration = normalize(images(24, 1))
    return Pruner(graph, moved, Remote(calibration) if device == SIMULATED else calibration, **options)


def evaluator_of(pruner):
    search = ImageSet(images(60, 2), torch.arange(60) % 10)
    return Evaluator(pruner, search, normalize, Classification(), batch_size=20)


def candidate(pruner):
    return pruner.graph.widths * 2 // 3


@pytest.mark.parametrize(
    ("make", "repair"),
    [*((resnet20, repair) for repair in REPAIRS), (mobilenet_v1, "refit"), (mobilenet_v1, "reconstruction")],
)
def test_a_candidate_is_repaired_and_scored_where_the_network_is(make, repair):
    here, pruner = (pruner_on(device, make=make, repair=repair) for device in ("cpu", SIMULATED))
    expected = evaluator_of(here)(candidate(here), "test")
    with SimulatedDevice() as device:
        evaluator = evaluator_of(pruner)
        evaluator(pruner.graph.widths, "first")  # importance scores go to the CPU once, images come from there
        device.sent.clear()
        device.received.clear()
        found = evaluator(candidate(pruner), "test")
    # Whether each image is right and four sums for each batch come back, and nothing else: for each the CPU waits.
    assert sorted(device.sent) == [12, 60]
    # What stays of each group and of the stem goes there once, not for each tensor; then what repairs need.
    assert len(device.received) <= len(pruner.graph.groups) + 2 + SENT_FOR_A_LAYER[repair] * len(pruner.layers)
    assert max(device.received) <= 9 * max(pruner.graph.widths)  # indices of what stays: channels of 3 x 3 filters
    assert found.scores["top1"] == pytest.approx(expected.scores["top1"])
    assert found.scores["cross_entropy"] == pytest.approx(expected.scores["cross_entropy"], rel=1e-4)
    assert found.scores["divergence"] == pytest.approx(expected.scores["divergence"], rel=1e-3)


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_channels_are_chosen_by_scores_from_there(importance):
    expected, pruner = (pruner_on(device, importance=importance) for device in ("cpu", SIMULATED))
    with SimulatedDevice():
        scores = pruner.scores
    assert not any(isinstance(score, Remote) for score in scores)
    for ours, theirs in zip(scores, expected.scores, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_sensitivities_are_measured_there():
    expected, pruner = pruner_on("cpu"), pruner_on(SIMULATED)
    with SimulatedDevice():
        found = measure_reconstruction(pruner), measure_outputs(pruner, ratios=(0.5,))
    torch.testing.assert_close(found[0], measure_reconstruction(expected), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found[1], measure_outputs(expected, ratios=(0.5,)), rtol=1e-3, atol=1e-6)


def test_mixing_is_an_error():
    with SimulatedDevice():
        here, there = torch.ones(3), Remote(torch.ones(3))
        with pytest.raises(RuntimeError, match="two devices"):
            here + there
        assert (there * 2 + 1).cpu().tolist() == [3, 3, 3]
        assert isinstance(torch.zeros(2, device=there.device), Remote)
