"""Networks for small images, weights from files, and checks of networks."""

from gnnrl_lightning.networks.checks import check_finite, check_runs, check_stored, not_finite
from gnnrl_lightning.networks.cifar_resnet import (
    CIFARResNet,
    OptionAShortcut,
    resnet20,
    resnet32,
    resnet44,
    resnet56,
    resnet110,
)
from gnnrl_lightning.networks.mobilenet import MobileNetV1, MobileNetV2, mobilenet_v1, mobilenet_v2
from gnnrl_lightning.networks.modes import eval_mode
from gnnrl_lightning.networks.small import Perceptron, SmallUNet
from gnnrl_lightning.networks.vgg import VGG, vgg16_bn
from gnnrl_lightning.networks.weights import load_weights, read_notes, save_weights

__all__ = [
    "VGG",
    "CIFARResNet",
    "MobileNetV1",
    "MobileNetV2",
    "OptionAShortcut",
    "Perceptron",
    "SmallUNet",
    "check_finite",
    "check_runs",
    "check_stored",
    "eval_mode",
    "load_weights",
    "mobilenet_v1",
    "mobilenet_v2",
    "not_finite",
    "read_notes",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "save_weights",
    "vgg16_bn",
]
