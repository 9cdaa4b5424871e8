"""Prepare a pruned network for fast forward passes: folded batch norms, channels last, lower precision, fusion."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_weights, fuse_linear_bn_weights

from gnnrl_lightning.networks.channels_last import store_channels_last
from gnnrl_lightning.speed.fusion import fuse_convolutions
from gnnrl_lightning.surgery.layers import Layer

PRECISIONS = {"32": torch.float32, "bf16": torch.bfloat16}
"""Name -> precision of weights and activations while a candidate is scored."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def for_inference(
    network: nn.Module, layers: Mapping[str, Layer], dtype: torch.dtype = torch.float32, last: bool = True
) -> nn.Module:
    """Return a faster network with the same outputs up to rounding. It reuses the modules of `network`.

    Each batch norm is folded into a layer if it is the layer's only reader, weights may be stored channels last, and on
    CPUs convolutions are fused with the operators that follow them, see `fusion`.

    Args:
        network: A network in evaluation mode that is needed for scoring only; do not use it again.
        layers: Its layers, see `find_layers`.
        dtype: Precision of weights and activations; convert the inputs as well.
        last: Whether weights are stored channels last, see `gnnrl_lightning.networks.channels_last`; convert the inputs
            as well.
    """
    fold_batch_norms(network, layers)
    network.requires_grad_(False).to(dtype)
    if last:
        store_channels_last(network)
    return fuse_convolutions(network)


def fold_batch_norms(network: nn.Module, layers: Mapping[str, Layer]) -> None:
    """Fold every batch norm that is a layer's only reader into that layer, in place, and make it an identity.

    Only PyTorch's own modules are folded: a subclass may compute something else.

    Args:
        network: A network in evaluation mode.
        layers: Its layers; `Layer.norm` is the batch norm that is the only reader of a layer.
    """
    for name, layer in layers.items():
        if "running_mean" not in layer.norm or layer.shared:
            continue
        fold_batch_norm(network, *(tensor.rpartition(".")[0] for tensor in (name, layer.norm["running_mean"])))


def fold_batch_norm(network: nn.Module, path: str, norm_path: str) -> None:
    """Fold a batch norm into the layer before it, in place, if both are PyTorch's own modules.

    Args:
        network: A network in evaluation mode.
        path: Path of the layer, whose only reader the batch norm is.
        norm_path: Path of the batch norm.
    """
    module, norm = network.get_submodule(path), network.get_submodule(norm_path)
    if type(module) not in (*CONVOLUTIONS, nn.Linear) or type(norm) not in BATCH_NORMS:
        return
    numbers = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    fuse = fuse_linear_bn_weights if type(module) is nn.Linear else fuse_conv_bn_weights
    module.weight, module.bias = fuse(module.weight, module.bias, *numbers)  # pyright: ignore[reportArgumentType]
    # Not another module in its place: the network may hold it under other names as well, and it may have hooks.
    norm.__class__ = nn.Identity
    norm._parameters.clear()
    norm._buffers.clear()
