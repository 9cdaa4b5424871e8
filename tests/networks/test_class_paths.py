"""Networks, data and options build from YAML, as the command line does it."""

import pytest
import torchvision
from jsonargparse import ArgumentParser
from torch import nn

from gnnrl_lightning.data import Digits, ImageData
from gnnrl_lightning.networks import CIFARResNet


def build(base, class_path, **init_args):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--it", type=base)
    return parser.instantiate(parser.parse_object({"it": {"class_path": class_path, "init_args": init_args}})).it


@pytest.mark.parametrize(
    ("class_path", "expected"),
    [
        ("gnnrl_lightning.networks.resnet20", CIFARResNet),
        ("torchvision.models.resnet18", torchvision.models.ResNet),
    ],
)
def test_functions_build_networks(class_path, expected):
    network = build(nn.Module, class_path, num_classes=7)
    assert isinstance(network, expected)
    assert [module for module in network.modules() if isinstance(module, nn.Linear)][-1].out_features == 7


def test_data_modules_build():
    data = build(ImageData, "gnnrl_lightning.data.Digits", holdout_size=100, pad=2)
    assert isinstance(data, Digits)
    data.setup()
    assert len(data.holdout) == 100


def test_arguments_are_checked():
    with pytest.raises(Exception, match="Option 'depth' is not accepted"):
        build(nn.Module, "gnnrl_lightning.networks.resnet20", depth=3)
    with pytest.raises(Exception, match=r"Expected a typing.Literal\['A', 'B'\]"):
        build(nn.Module, "gnnrl_lightning.networks.resnet20", shortcut="C")
