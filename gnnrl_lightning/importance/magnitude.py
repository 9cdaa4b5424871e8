"""Importance criteria computed from the weights only."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gnnrl_lightning.importance.context import Calibration, ImportanceContext
from gnnrl_lightning.networks.norms import BATCH_NORMS


def l1(network: nn.Module, parameters: Mapping[str, Tensor], calibration: Calibration | None) -> dict[str, Tensor]:
    """Sum of absolute weights (Li et al., ICLR 2017)."""
    return {name: tensor.abs() for name, tensor in parameters.items() if tensor.dim() > 1}


def l2(network: nn.Module, parameters: Mapping[str, Tensor], calibration: Calibration | None) -> dict[str, Tensor]:
    """Sum of squared weights, both those that produce the channel and those that read it.

    On CIFAR-10 with ResNet-56 and reconstruction, the choice of tensors makes no difference: with all tensors, only
    those that produce the channel, or each relative to its mean, top-1 differs by at most 0.2 points.
    """
    return {name: tensor.square() for name, tensor in parameters.items() if tensor.dim() > 1}


def batch_norm_scale(
    network: nn.Module, parameters: Mapping[str, Tensor], calibration: Calibration | None
) -> dict[str, Tensor]:
    """Sum of the absolute scales of a channel's batch norms (Liu et al., ICCV 2017)."""
    norms = (*BATCH_NORMS, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
    names = {f"{path}.weight" for path, module in network.named_modules() if isinstance(module, norms)}
    return {name: tensor.abs() for name, tensor in parameters.items() if name in names}


def geometric_median(context: ImportanceContext) -> list[Tensor]:
    r"""Distance to all other channels, `sum_j ||x_i - x_j||`: channels near the geometric median are replaceable.

    x_i is the vector of all elements that are removed with channel i, in all weights of its group.

    Source: FPGM (He et al., CVPR 2019), equation 8.
    """
    starts = torch.tensor([0, *context.sizes]).cumsum(0)
    squares = [
        torch.zeros(int(sets), int(width), int(width), dtype=torch.float64)
        for sets, width in zip(context.graph.sets, context.graph.widths, strict=True)
    ]
    for name, tensor in context.parameters.items():
        if tensor.dim() < 2:
            continue
        for numbers, slices in context.slices(name, tensor):
            group = torch.bucketize(numbers, starts, right=True) - 1
            for i in group.unique().tolist():
                width = int(context.graph.widths[i])
                local = numbers - starts[i]
                for row in (local[group == i] // width).unique().tolist():
                    mine = ((group == i) & (local // width == row)).nonzero().flatten()
                    ordered = mine[local[mine].argsort(stable=True)]
                    vectors = slices[ordered.to(slices.device)].double().cpu().reshape(width, -1)
                    squares[i][row] += torch.cdist(vectors, vectors).square()
    return [square.sqrt().sum(2) for square in squares]


def random(context: ImportanceContext) -> list[Tensor]:
    """Random scores, always the same for a given graph."""
    generator = torch.Generator().manual_seed(0)
    return context.split(torch.rand(sum(context.sizes), generator=generator, dtype=torch.float64))
