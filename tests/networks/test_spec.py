import numpy as np
import pytest
import torch
from torch import nn

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks.spec import NetworkSpec


def test_a_class_is_built_with_its_arguments():
    network = NetworkSpec("torch.nn.Linear", {"in_features": 3, "out_features": 5, "bias": False}).build()
    assert isinstance(network, nn.Linear)
    assert network.weight.shape == (5, 3) and network.bias is None


def test_a_function_of_another_library():
    spec = NetworkSpec("torchvision.models.resnet18", {"num_classes": 7})
    assert spec.name == "resnet18"
    assert spec.build().fc.out_features == 7


def test_a_short_name_is_one_of_ours():
    assert NetworkSpec("resnet20", {"num_classes": 4}).build().linear.out_features == 4


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("nowhere.Network", {}, "cannot be imported: No module named 'nowhere'"),
        ("torch.nn.Nothing", {}, "cannot be imported: .*Nothing"),
        ("nothing", {}, "is 'nothing': expected a network of gnnrl_lightning.networks, or an import path"),
        ("torch.nn.", {}, "expected an import path, package.module.name"),
        ("torch.nn.Linear", {"in_features": 3}, "refuses its init_args.*missing a required argument"),
        ("torch.nn.Linear", {"width": 3}, "refuses its init_args.*"),
        ("torchvision.models.resnet18", {"classes": 3}, "refuses.*unexpected keyword argument 'classes'"),
        ("torch.nn.Linear", {"in_features": -1, "out_features": 3}, "refuses its init_args.*negative"),
        ("torch.pi", {}, "is not a class or function"),
        ("collections.Counter", {}, "returns a Counter, not a torch.nn.Module"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(path, arguments, message):
    with pytest.raises(UserError, match=message) as error:
        NetworkSpec(path, arguments).build()
    assert "\n" not in str(error.value)


def from_file(seed=3):
    """As networks are made whose weights are read from a file."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(4, 2)
    layer.load_state_dict({"weight": torch.randn(2, 4, generator=generator), "bias": torch.zeros(2)})
    return layer


def by_numpy():
    layer = nn.Linear(4, 2)
    layer.load_state_dict({"weight": torch.from_numpy(np.random.randn(2, 4)), "bias": torch.zeros(2)})
    return layer


def new_head():
    return nn.Sequential(from_file(), nn.Linear(2, 3))


@pytest.mark.parametrize("make", ["torch.nn.Linear", f"{__name__}.by_numpy", f"{__name__}.new_head"])
def test_weights_depend_on_the_seed_and_on_nothing_else(make):
    spec = NetworkSpec(make, {"in_features": 3, "out_features": 2} if "Linear" in make else {})
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second = spec.build(1).state_dict(), spec.build(1).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()
    spec.check_random(spec.build(1), 1)


def test_trained_weights_are_told_from_random_ones():
    spec = NetworkSpec(f"{__name__}.from_file")
    with pytest.raises(
        UserError, match=r"from_file makes the same weights whatever the seed.*pretraining.epochs to 0 to"
    ):
        spec.check_random(spec.build(0), 0)
