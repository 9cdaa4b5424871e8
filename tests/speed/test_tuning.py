"""The choice depends on times, which are artificial here, and on outputs, which are real."""

import copy
import itertools

import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.networks import resnet20
from gnnrl_lightning.objective import Classification
from gnnrl_lightning.speed.tuning import tune
from gnnrl_lightning.surgery.layers import find_layers
from tests.support.networks_code import Viewing


class Clock:
    """Makes every forward pass take a given time, in seconds per image.

    Args:
        times: (precision, batch size) -> seconds per image.
    """

    def __init__(self, times):
        self.times, self.now, self.asked = times, 0.0, []

    def watch(self, network):
        """A copy of the network that advances the clock at each pass."""
        watched = copy.deepcopy(network)
        watched.clock = self

        def passed(module, args, output):
            key = ("bf16" if args[0].dtype == torch.bfloat16 else "32", len(args[0]))
            module.clock.asked.append(key)
            module.clock.now += module.clock.times.get(key, 9.0) * key[1]

        watched.register_forward_hook(passed)
        return watched

    def __call__(self):
        return self.now

    def __deepcopy__(self, memo):
        return self


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = resnet20(num_classes=10).eval()
    return made, find_layers(gnnrl_lightning.trace(made, torch.zeros(1, 3, 16, 16)))


def tuned(network, times, sizes=(2, 4, 8), images=8):
    clock = Clock(times)
    inputs = torch.randn(images, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return tune(clock.watch(network[0]), network[1], inputs, Classification(), sizes, clock), clock


def table(float32, bfloat16, sizes=(2, 4, 8)):
    rows = (("32", float32), ("bf16", bfloat16))
    return {(name, size): time for name, row in rows for size, time in zip(sizes, row, strict=True)}


@pytest.mark.parametrize(
    ("float32", "bfloat16", "expected"),
    [
        ((3, 2, 1), (1, 0.5, 0.25), ("bf16", 8)),
        ((3, 2, 1), (4, 3, 2), ("32", 8)),
        ((3, 2, 2.5), (4, 3, 2.5), ("32", 4)),
        ((1, 2, 0.1), (2, 1, 1), ("32", 2)),  # a larger batch is not tried once one is slower
        ((1, 1, 1), (1, 1, 1), ("32", 2)),  # nothing is gained
    ],
)
def test_the_fastest_is_chosen(network, float32, bfloat16, expected):
    result, _ = tuned(network, table(float32, bfloat16))
    assert (result.precision, result.batch_size) == expected
    assert result.refused == ()


def test_sizes_beyond_the_images_are_not_tried(network):
    result, clock = tuned(network, table((3, 2, 1), (3, 2, 1)), images=5)
    assert result.batch_size == 4 and {size for _, size in clock.asked} == {1, 2, 4}  # five are 2 + 2 + 1
    result, clock = tuned(network, {}, sizes=(64, 128), images=5)
    assert result.batch_size == 64 and {size for _, size in clock.asked} == {
        2,
        5,
    }  # two are the trial of a memory format


def test_the_network_is_left_as_it_is(network):
    before = copy.deepcopy(network[0].state_dict())
    tuned(network, table((3, 2, 1), (3, 2, 1)))
    after = network[0].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert isinstance(network[0].bn1, nn.BatchNorm2d)


def test_code_that_does_not_run_channels_last_is_measured_without():
    network = nn.Sequential(nn.AvgPool2d(2), Viewing())
    result, clock = tuned((network, {}), table((3, 2, 1), (4, 3, 2)), images=8)
    assert (result.precision, result.batch_size, result.refused) == ("32", 8, ()) and clock.asked


class Coarse(nn.Module):
    """Adds 1 to 300, where bfloat16 has steps of 2, and takes 300 off again: the classes are lost in it."""

    def forward(self, x):
        return (x.flatten(1)[:, :4] + 300 - 300) * 4


class Overflowing(nn.Module):
    """Gives no numbers in less than float32."""

    def forward(self, x):
        outputs = x.flatten(1)[:, :4]
        return outputs if x.dtype == torch.float32 else outputs * float("inf")


class Spectrum(nn.Module):
    """Has no kernel for bfloat16."""

    def forward(self, x):
        return torch.fft.rfft(x.flatten(1)[:, :6]).abs()


def test_a_precision_in_which_the_network_fails_is_refused():
    result, _ = tuned((Spectrum(), {}), table((3, 2, 1), (0.1, 0.1, 0.1)))
    assert (result.precision, result.batch_size, result.refused) == ("32", 8, ("bf16",))
    with pytest.raises(RuntimeError, match="Given groups=1"):  # in float32, too
        tuned((nn.Conv2d(5, 2, 1), {}), {})


@pytest.mark.parametrize("module", [Coarse, Overflowing])
def test_a_precision_that_gives_other_outputs_is_refused_however_fast(module):
    result, clock = tuned((module(), {}), table((3, 2, 1), (0.1, 0.1, 0.1)))
    assert (result.precision, result.batch_size, result.refused) == ("32", 8, ("bf16",))
    assert {key for key in clock.asked if key[0] == "bf16"} == {("bf16", 2)}
    assert str(result) == (
        "candidates are scored in precision 32, 8 examples a batch (32 1e+03 ms; bf16 does not agree with 32)"
    )


def test_times_are_the_best_of_the_repetitions(network):
    """The first pass in a size is slow, in each precision."""
    slow = itertools.chain([5.0], itertools.repeat(1.0))

    class Warming(Clock):
        def __call__(self):
            self.now += next(slow)
            return self.now

    clock = Warming({})
    inputs = torch.randn(4, 3, 16, 16)
    assert tune(network[0], network[1], inputs, Classification(), (4,), clock).milliseconds == {
        "32": 250.0,
        "bf16": 250.0,
    }
