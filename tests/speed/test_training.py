import copy
from itertools import count as counter

import pytest
import torch
from torch import nn

from gnnrl_lightning.objective import Classification
from gnnrl_lightning.speed.training import TunedTraining, tune_training
from gnnrl_lightning.training.options import TrainingOptions
from tests.support.networks_code import Viewing
from tests.training.test_train import same, small

USUAL, FAST = ("32", False), ("bf16", True)


def examples(count=16):
    torch.manual_seed(0)
    return torch.randn(count, 1, 8, 8), torch.arange(count) % 10


def clock_of(seconds):
    """A clock by which steps take given times, in the order in which they are measured."""
    now, calls = 0.0, counter()

    def clock():
        nonlocal now
        number = next(calls)
        if number % 2:
            now += seconds[number // 2 % len(seconds)]
        return now

    return clock


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ([1.0, 0.9, 0.8, 0.5], FAST),
        ([1.0, 0.8, 0.95, 0.85], ("32", True)),
        ([1.0, 0.95, 0.92, 0.91], USUAL),  # not worth it
        ([1.0, 2.0, 3.0, 4.0], USUAL),
    ],
)
def test_the_fastest_way_is_taken_if_it_is_clearly_faster(seconds, best):
    found = tune_training(small(), *examples(), Classification(), clock_of(seconds))
    assert (found.precision, found.channels_last) == best
    assert [*found.milliseconds.values()] == pytest.approx([1000 * each / 16 for each in seconds])
    assert not found.refused


def test_measuring_changes_neither_the_network_nor_random_numbers():
    network, given = small(dropout=0.5), examples()
    before, state = copy.deepcopy(network), torch.random.get_rng_state()
    tune_training(network, *given, Classification())
    assert same(network, before) and not any(parameter.grad is not None for parameter in network.parameters())
    assert network.training and torch.equal(torch.random.get_rng_state(), state)


class OnlyFloat32(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, images):
        outputs = self.layer(images.flatten(1))
        return torch.linalg.qr(outputs.mT @ outputs).R @ outputs.mT if outputs.dtype != torch.float32 else outputs


class Rough(OnlyFloat32):
    def forward(self, images):
        outputs = self.layer(images.flatten(1))
        return outputs if outputs.dtype == torch.float32 else -outputs


@pytest.mark.parametrize("network", [OnlyFloat32(), Rough()], ids=["fails", "does not agree"])
def test_a_precision_that_the_network_does_not_bear_is_refused(network):
    found = tune_training(network, *examples(), Classification(), clock_of([1.0, 2.0]))
    assert found.refused == ("bf16",) and found.precision == "32"
    assert "bf16 does not agree with 32" in str(found)


def test_a_memory_format_that_the_network_does_not_bear_is_not_measured():
    network = nn.Sequential(nn.Conv2d(1, 3, 1), Viewing(), nn.Linear(4, 10))
    found = tune_training(network, *examples(), Classification(), clock_of([1.0, 0.5]))
    assert (found.precision, found.channels_last) == ("bf16", False)
    assert [*found.milliseconds] == [USUAL, ("bf16", False)] and not found.refused


def test_what_fails_in_float32_is_not_hidden():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        tune_training(nn.Sequential(nn.Flatten(), nn.Linear(3, 10)), *examples(), Classification())


def test_options_that_are_open_are_decided():
    found = TunedTraining("bf16", True, {USUAL: 1.0, FAST: 0.5})
    decided = found.applied(TrainingOptions(precision="auto"))
    assert (decided.precision, decided.channels_last) == FAST
    assert found.applied(TrainingOptions(precision="auto", channels_last=False)).channels_last is False
    assert "bf16 with channels last (milliseconds an example: 1 in 32, 0.5 in bf16 with channels last)" in str(found)
    closed = TrainingOptions(epochs=0, precision="auto").closed
    assert (closed.precision, closed.channels_last) == USUAL
