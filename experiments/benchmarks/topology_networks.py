"""Networks by name: of this package, of torchvision, and of libraries that are named first: `smp/Unet/resnet18`.

Those of timm, pytorchcv, segmentation-models-pytorch (smp) and monai need these packages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from gnnrl_lightning import networks

Built = tuple[nn.Module, tuple[int, ...]]
"""A network, and the shape of an input."""

OWN = {
    "cifar_resnet20": networks.resnet20,
    "cifar_resnet56": networks.resnet56,
    "cifar_resnet110": networks.resnet110,
    "cifar_resnet20_b": lambda: networks.resnet20(shortcut="B"),
    "cifar_vgg16_bn": networks.vgg16_bn,
    "cifar_mobilenet_v1": networks.mobilenet_v1,
    "cifar_mobilenet_v2": networks.mobilenet_v2,
}
TIMM = """
    botnet26t_256 cait_xxs24_224 coat_lite_tiny coatnet_nano_rw_224 convformer_s18 convit_tiny convmixer_768_32
    convnext_atto convnextv2_atto crossvit_tiny_240 cs3darknet_s cspresnet50 darknet17 davit_tiny densenet121
    dla34 dla46_c dpn48b eca_botnext26ts_256 ecaresnetlight edgenext_xx_small efficientformer_l1
    efficientformerv2_s0 efficientnet_b0 efficientvit_b0 efficientvit_m0 ese_vovnet19b_dw fasternet_t0
    fastvit_t8 focalnet_tiny_srf gcresnext26ts gernet_s ghostnet_050 ghostnetv2_100 hardcorenas_a hgnet_tiny
    hgnetv2_b0 hiera_tiny_224 hrnet_w18_small inception_next_atto inception_v3 lambda_resnet26t lcnet_050
    levit_128s mambaout_femto maxvit_rmlp_pico_rw_256 mixer_s32_224 mixnet_s mnasnet_050 mobilenetv3_small_050
    mobilenetv4_conv_small mobileone_s0 mobilevit_xxs mobilevitv2_050 mvitv2_tiny nest_tiny nf_resnet26 nfnet_l0
    pit_ti_224 poolformer_s12 pvt_v2_b0 rdnet_tiny regnetx_002 regnety_002 regnetz_b16 repghostnet_050 repvgg_a0
    repvit_m0_9 res2net50_14w_8s resmlp_12_224 resnest14d resnet26t resnetrs50 resnetv2_50 rexnet_100
    sebotnet33ts_256 sedarknet21 selecsls42 semnasnet_050 sequencer2d_s seresnet18 shvit_s1 skresnet18
    starnet_s1 swiftformer_xs swinv2_tiny_window8_256 tf_efficientnetv2_b0 tiny_vit_5m_224 tinynet_e
    tnt_s_patch16_224 tresnet_m twins_svt_small visformer_tiny volo_d1_224 vovnet39a xception41
    xcit_nano_12_p16_224
""".split()
"""Architectures of timm, spread over its families; their names begin with `timm/` in the table."""
OTHERS = {
    **dict.fromkeys(("fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"), (3, 128, 128)),
    **dict.fromkeys(("r3d_18", "mc3_18", "r2plus1d_18"), (3, 8, 64, 64)),
}
"""Torchvision's models for segmentation and video, and the shape of their inputs."""
DETECTORS = {
    "ssdlite320_mobilenet_v3_large": 320,
    "ssd300_vgg16": 300,
    "retinanet_resnet50_fpn": 224,
    "retinanet_resnet50_fpn_v2": 224,
    "fcos_resnet50_fpn": 224,
    "fasterrcnn_mobilenet_v3_large_320_fpn": 224,
    "maskrcnn_resnet50_fpn": 224,
}
"""Torchvision's detectors, without what depends on the values of boxes, and the side of their images; their names
begin with `detection/` in the table."""
MONAI: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "UNet": (
        (1, 64, 64),
        {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": (16, 32, 64), "strides": (2, 2)},
    ),
    "BasicUNet": ((1, 64, 64), {"spatial_dims": 2, "features": (16, 16, 32, 64, 128, 16)}),
    "SegResNet": ((1, 32, 32, 32), {"spatial_dims": 3, "init_filters": 8}),
    "VNet": ((1, 32, 32, 32), {"spatial_dims": 3}),
    "DenseNet121": ((1, 32, 32, 32), {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}),
    "SwinUNETR": ((1, 64, 64), {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "feature_size": 12}),
    "UNETR": (
        (1, 64, 64),
        {
            "spatial_dims": 2, "in_channels": 1, "out_channels": 2, "img_size": (64, 64), "feature_size": 8,
            "hidden_size": 48, "mlp_dim": 96, "num_heads": 4,
        },
    ),
}  # fmt: skip
"""Networks of monai: the shape of their inputs, and their arguments; `monai/UNet` in the table."""
SIZES = {"inception_v3": 299}
UNINITIALISED = {"googlenet", "inception_v3"}


class Dense(nn.Module):
    """What a detector computes of every place: its maps, and what its head gives for them.

    Args:
        detector: Of torchvision.
    """

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone, self.two_stages = detector.backbone, hasattr(detector, "rpn")
        self.head = detector.rpn.head if self.two_stages else detector.head

    def forward(self, images: Tensor) -> list[Any]:
        """Outputs of the head, and the maps that a second stage reads."""
        maps = list(self.backbone(images).values())
        return [self.head(maps), *(maps if self.two_stages else [])]


def of_timm(name: str) -> Built:
    """A network of timm, on the smallest images that it takes."""
    import timm

    network = timm.create_model(name)
    usual: Any = network.default_cfg
    return network, usual["input_size"] if usual.get("fixed_input_size") else (3, 96, 96)


def of_pytorchcv(name: str) -> Built:
    """A network of pytorchcv for images, of at most 224 pixels a side unless its code fixes the size."""
    from pytorchcv.model_provider import get_model  # pyright: ignore[reportMissingImports]

    network: Any = get_model(name, pretrained=False)
    side = max(network.in_size) if getattr(network, "fixed_size", False) else 224
    return network, (3, *(min(size, side) for size in network.in_size))


def of_smp(name: str) -> Built:
    """A network of segmentation-models-pytorch, `Unet/resnet18`."""
    import segmentation_models_pytorch as smp  # pyright: ignore[reportMissingImports]

    architecture, encoder = name.split("/")
    return smp.create_model(architecture, encoder, encoder_weights=None, classes=5), (3, 128, 128)


def of_monai(name: str) -> Built:
    """A network of `MONAI`."""
    from monai.networks import nets  # pyright: ignore[reportMissingImports]

    shape, arguments = MONAI[name]
    return getattr(nets, name)(**arguments), shape


def of_detectors(name: str) -> Built:
    """A detector of torchvision."""
    detector = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=5)
    return Dense(detector), (3, DETECTORS[name], DETECTORS[name])


LIBRARIES: dict[str, Callable[[str], Built]] = {
    "timm": of_timm,
    "pytorchcv": of_pytorchcv,
    "smp": of_smp,
    "monai": of_monai,
    "detection": of_detectors,
}
"""First part of a network's name -> what builds it from the rest."""


def build(name: str) -> Built:
    """A network with random weights, and the shape of its inputs."""
    torch.manual_seed(0)
    if name in OWN:
        return OWN[name](), (3, 32, 32)
    library, _, rest = name.partition("/")
    if rest:
        return LIBRARIES[library](rest)
    more: dict[str, Any] = {"init_weights": False} if name in UNINITIALISED else {}
    more |= {"weights_backbone": None} if len(OTHERS.get(name, ())) == 3 else {}
    side = SIZES.get(name, 224)
    return torchvision.models.get_model(name, weights=None, **more), OTHERS.get(name, (3, side, side))
