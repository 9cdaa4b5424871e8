"""Seeing the inputs of every contraction while a network runs, whatever module or function calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

CONVOLUTIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
"""Function -> spatial dimensions."""

Visit = Callable[[str, Tensor, dict[str, Any]], Tensor | None]
"""`(weight name, input, convolution arguments) -> weight to use instead, or None`."""


class ContractionObserver(TorchFunctionMode):
    """Calls `visit` at every convolution and linear layer whose weight is one of the given tensors.

    Layers are recognised by the tensor that they multiply with, so functional calls and reused modules count too.

    Args:
        weights: Name -> weight tensor of the network that runs.
        visit: Called before the operator, which then uses the weight that it returns, if any.
    """

    def __init__(self, weights: Mapping[str, Tensor], visit: Visit) -> None:
        super().__init__()
        self._names = {id(weight): name for name, weight in weights.items()}
        self._visit = visit

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Intercept one call."""
        kwargs = kwargs or {}
        if func in CONVOLUTIONS or func is F.linear:
            bound = _bind(func, args, kwargs)
            name = self._names.get(id(bound["weight"]))
            if name is not None:
                replaced = self._visit(name, bound["input"], bound)
                if replaced is not None:
                    return func(**(bound | {"weight": replaced}))
        return func(*args, **kwargs)


def _bind(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    return dict(zip(names, args, strict=False)) | dict(kwargs)


def sample_patches(
    x: Tensor, weight: Tensor, call: dict[str, Any], per_image: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Input vectors of a contraction at random positions.

    Args:
        x: Its input, `(B, C_in, *space)` for a convolution, `(..., in)` for a linear layer.
        weight: Its weight.
        call: Its arguments, as `ContractionObserver` gives them.
        per_image: Positions taken from each image.
        generator: Draws the positions.

    Returns:
        Vectors `(n, C_in * kernel)` (channel first), and the positions `(B, per_image)` that they come from.
    """
    if weight.dim() == 2:
        tokens = x.reshape(len(x), -1, x.shape[-1])
        positions = draw_positions(len(x), tokens.shape[1], per_image, generator)
        return _take(tokens, positions), positions
    if weight.dim() == 3:
        x, weight = x.unsqueeze(2), weight.unsqueeze(2)
    stride, padding, dilation = (_pair(call.get(key, default)) for key, default in
                                 (("stride", 1), ("padding", 0), ("dilation", 1)))  # fmt: skip
    kernel = weight.shape[2:]
    if isinstance(call.get("padding"), str):
        total = [d * (k - 1) if call["padding"] == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        x = F.pad(x, (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2))
    else:
        x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    rows = (x.shape[2] - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    columns = (x.shape[3] - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    positions = draw_positions(len(x), rows * columns, per_image, generator)
    top = (positions // columns) * stride[0]
    left = (positions % columns) * stride[1]
    i = (top[:, :, None] + torch.arange(kernel[0]) * dilation[0])[:, :, :, None]
    j = (left[:, :, None] + torch.arange(kernel[1]) * dilation[1])[:, :, None, :]
    flat = (i * x.shape[3] + j).flatten(1)
    pixels = x.flatten(2).gather(2, flat[:, None, :].expand(-1, x.shape[1], -1).to(x.device))
    pixels = pixels.reshape(len(x), x.shape[1], positions.shape[1], -1)
    return pixels.transpose(1, 2).reshape(-1, x.shape[1] * kernel.numel()), positions


def draw_positions(images: int, available: int, wanted: int, generator: torch.Generator) -> Tensor:
    """Positions `(images, n)` without repetition within an image, n = min(available, wanted)."""
    if available <= wanted:
        return torch.arange(available).expand(images, -1)
    return torch.rand(images, available, generator=generator).topk(wanted).indices


def _take(tokens: Tensor, positions: Tensor) -> Tensor:
    index = positions.to(tokens.device)[:, :, None].expand(-1, -1, tokens.shape[2])
    return tokens.gather(1, index).reshape(-1, tokens.shape[2])


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, str):
        return (0, 0)
    if isinstance(value, int):
        return (value, value)
    return (value[0], value[-1]) if len(value) > 1 else (0, value[0])


def contraction_weights(network: nn.Module, names: Any) -> dict[str, Tensor]:
    """The named weights of a network that convolutions and linear layers multiply with."""
    parameters = dict(network.named_parameters(remove_duplicate=False))
    return {name: parameters[name] for name in names if name in parameters}
