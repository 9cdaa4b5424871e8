import pytest
import torch
from torch import nn

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks import check_finite, check_runs, check_stored, eval_mode, resnet20


def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 5))


def modes(network):
    return [module.training for module in network.modules()]


@pytest.mark.parametrize(("key", "value"), [("0.weight", float("nan")), ("1.running_var", float("inf"))])
def test_nan_and_infinite_values_are_named(key, value):
    network = small()
    check_finite(network)
    network.state_dict()[key].flatten()[:2] = value
    with pytest.raises(UserError, match=f"the network has 2 NaN or infinite values in {key}"):
        check_finite(network)


def test_a_fitting_network_passes_and_stays_as_it_was():
    network = small()
    network[1].eval()
    before = modes(network)
    assert check_runs(network, torch.randn(2, 3, 8, 8)).shape == (2, 5)
    assert modes(network) == before == [True, True, False, True, True]
    assert network[1].num_batches_tracked == 0


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 9, 9), "the network refuses inputs of 3x9x9: .*mat1 and mat2 shapes cannot be multiplied"),
        ((2, 1, 8, 8), "the network refuses inputs of 1x8x8: .*expected input.*to have 3 channels"),
    ],
)
def test_unfitting_networks_get_one_line(shape, message):
    network = small().train()
    with pytest.raises(UserError, match=message) as caught:
        check_runs(network, torch.zeros(shape))
    assert "\n" not in str(caught.value)
    assert all(modes(network))


def test_weights_in_another_precision_or_without_numbers_are_refused():
    check_stored(nn.Linear(2, 2))
    half = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).half())
    with pytest.raises(UserError, match=r"^1.weight is stored in float16: expected float32, so call .float\(\) on"):
        check_stored(half)
    with pytest.raises(UserError, match=r"^weight is on the meta device, where tensors have no numbers: give"):
        check_stored(nn.Linear(2, 2, device="meta"))


def test_a_dictionary_is_passed_by_name():
    with pytest.raises(
        UserError, match=r"'image'; change the inputs or its arguments, which have the names in the dict"
    ):
        check_runs(nn.Linear(2, 2), {"image": torch.zeros(3, 2)})


def test_eval_mode_restores_each_module_also_after_an_error():
    network = resnet20()
    network.layer2.eval()
    before = modes(network)
    with pytest.raises(KeyError), eval_mode(network) as inside:
        assert inside is network and not any(modes(network))
        raise KeyError
    assert modes(network) == before


def test_a_network_of_two_inputs_is_refused():
    with pytest.raises(UserError, match=r"the network refuses inputs of 1x8x8: .*missing 1 required positional"):
        check_runs(nn.Bilinear(8, 8, 10), torch.zeros(2, 1, 8, 8))


class Noisy(nn.Linear):
    def forward(self, input):
        return super().forward(input + torch.randn_like(input))


class Counting(nn.Linear):
    calls = 0

    def forward(self, input):
        self.calls += 1
        return self.calls * super().forward(input)


class Longer(Counting):
    def forward(self, input):
        return super().forward(input).repeat(1, self.calls)


@pytest.mark.parametrize("kind", [Noisy, Counting, Longer])
def test_a_network_that_gives_other_outputs_in_the_next_call_is_refused(kind):
    with pytest.raises(UserError, match=r"^the network gives other outputs for the same inputs, in evaluation mode"):
        check_runs(kind(8, 3), torch.randn(2, 8))
    assert check_runs(nn.Sequential(nn.Linear(8, 3), nn.Dropout(0.9)), torch.randn(2, 8)).shape == (2, 3)
