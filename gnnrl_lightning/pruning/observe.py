"""Seeing the inputs of every contraction while a network runs, whatever module or function calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_FORWARD = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
ARGUMENTS: dict[Any, tuple[str, ...]] = {
    F.linear: ("input", "weight", "bias"),
    torch.conv1d: _FORWARD,
    torch.conv2d: _FORWARD,
    torch.conv3d: _FORWARD,
    torch.conv_transpose1d: _TRANSPOSED,
    torch.conv_transpose2d: _TRANSPOSED,
    torch.conv_transpose3d: _TRANSPOSED,
}
"""Function that contracts channels -> names of its positional arguments."""

Call = Mapping[str, Any]
"""The arguments of one call by name."""

Visit = Callable[[str, Call], "Tensor | None"]
"""`(weight name, call) -> the weight to use instead, or None`."""


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
        if func in ARGUMENTS:
            call = dict(zip(ARGUMENTS[func], args, strict=False)) | dict(kwargs)
            name = self._names.get(id(call["weight"]))
            replaced = None if name is None else self._visit(name, call)
            if replaced is not None:
                return func(**(call | {"weight": replaced}))
        return func(*args, **kwargs)


def named_weights(network: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """The parameters of a network with these names."""
    parameters = dict(network.named_parameters(remove_duplicate=False))
    return {name: parameters[name] for name in names}


def sample_channels(call: Call, per_image: int, generator: torch.Generator) -> Tensor:
    """Channel vectors `(n, C_in)` at random positions of a contraction's input, `per_image` from each image at most."""
    x, weight = call["input"], call["weight"]
    tokens = x.reshape(len(x), -1, x.shape[-1]) if weight.dim() == 2 else x.flatten(2).transpose(1, 2)
    positions = draw_positions(len(x), tokens.shape[1], per_image, generator).to(x.device)
    return tokens.gather(1, positions[:, :, None].expand(-1, -1, tokens.shape[2])).reshape(-1, tokens.shape[2])


def sample_patches(call: Call, per_image: int, generator: torch.Generator) -> Tensor:
    """Input vectors `(n, C_in * kernel)` of a contraction at random output positions, channels first.

    With the weight flattened to `(C_out, C_in / groups * kernel)` a product with them gives the outputs there (without
    bias, for one group).

    Args:
        call: A linear layer, or a convolution in one or two dimensions.
        per_image: Positions taken from each image at most, without repetition.
        generator: Draws the positions.
    """
    x, weight = call["input"], call["weight"]
    if weight.dim() == 2:
        return sample_channels(call, per_image, generator)
    spatial = weight.dim() - 2
    if spatial == 1:
        x, weight = x.unsqueeze(2), weight.unsqueeze(2)
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    stride, dilation = (_pair(call.get(name, 1), spatial, 1) for name in ("stride", "dilation"))
    x = F.pad(x, _padding(call.get("padding", 0), spatial, kernel, dilation))
    rows, columns = (
        (size - d * (k - 1) - 1) // s + 1 for size, d, k, s in zip(x.shape[2:], dilation, kernel, stride, strict=True)
    )
    positions = draw_positions(len(x), rows * columns, per_image, generator)
    i = (positions // columns * stride[0])[:, :, None, None] + (torch.arange(kernel[0]) * dilation[0])[:, None]
    j = (positions % columns * stride[1])[:, :, None, None] + torch.arange(kernel[1]) * dilation[1]
    flat = (i * x.shape[3] + j).flatten(1).to(x.device)
    pixels = x.flatten(2).gather(2, flat[:, None, :].expand(-1, x.shape[1], -1))
    pixels = pixels.reshape(len(x), x.shape[1], positions.shape[1], -1)
    return pixels.transpose(1, 2).reshape(-1, x.shape[1] * kernel[0] * kernel[1])


def draw_positions(images: int, available: int, wanted: int, generator: torch.Generator) -> Tensor:
    """Positions `(images, n)` without repetition within an image, n = min(available, wanted)."""
    if available <= wanted:
        return torch.arange(available).expand(images, -1)
    return torch.rand(images, available, generator=generator).topk(wanted).indices


def _pair(value: Any, spatial: int, filler: int) -> tuple[int, int]:
    """Sizes for two dimensions; one-dimensional convolutions have `filler` in the first."""
    values = (value,) * spatial if isinstance(value, int) else tuple(value)
    values = values * spatial if len(values) == 1 else values
    return (filler, values[0]) if spatial == 1 else (values[0], values[1])


def _padding(
    padding: Any, spatial: int, kernel: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Padding as `F.pad` takes it: left, right, top, bottom."""
    if isinstance(padding, str):
        rows, columns = (d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True))
        return (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    rows, columns = _pair(padding, spatial, 0)
    return (columns, columns, rows, rows)
