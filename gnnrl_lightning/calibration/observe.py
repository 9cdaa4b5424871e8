"""Observation of the inputs of every contraction during a forward pass, whatever module or function calls it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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
"""`(weight name, call) -> the input to use instead, or None`."""


class ContractionObserver(TorchFunctionMode):
    """A context in which every convolution and linear layer with one of the given weights calls `visit`.

    Layers are identified by their weight tensor, so functional calls and reused modules are included.

    Args:
        weights: Name -> weight tensor of the running network.
        visit: Called before the operator; the operator reads the returned input instead, if there is one.
    """

    def __init__(self, weights: Mapping[str, Tensor], visit: Visit) -> None:
        super().__init__()
        self._weights = dict(weights)  # kept alive, so that their ids remain valid
        self._names = {id(weight): name for name, weight in weights.items()}
        self._visit = visit

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Intercept one call."""
        kwargs = kwargs or {}
        if func in ARGUMENTS:
            call = bind(func, args, kwargs)
            name = self._names.get(id(call["weight"]))
            replaced = None if name is None else self._visit(name, call)
            if replaced is not None:
                return func(**(call | {"input": replaced}))
        return func(*args, **kwargs)


def bind(func: Any, args: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call to a function of `ARGUMENTS` by name; transposed ones have `output_padding`."""
    always = {"output_padding": 0} if ARGUMENTS[func] is _TRANSPOSED else {}
    return always | dict(zip(ARGUMENTS[func], args, strict=False)) | dict(kwargs)


def named_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a network by all their names, aliases included."""
    return dict(network.named_parameters(remove_duplicate=False)) | dict(network.named_buffers())


def named_weights(network: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """Return the parameters of a network with these names."""
    tensors = named_tensors(network)
    return {name: tensors[name] for name in names}


def places(x: Tensor, linear: bool) -> tuple[int, ...]:
    """Sizes of all dimensions of an input but its channels: the last dimension for a linear layer, else the second."""
    return tuple(x.shape[:-1]) if linear else (len(x), *x.shape[2:])


def forward_form(call: Call) -> dict[str, Any]:
    """Convert a call of a transposed convolution to the equivalent convolution; return other calls unchanged.

    Zeros are inserted between the pixels of the input, and the weight changes as in `forward_weight`.

    Args:
        call: The call; a transposed convolution has one group, or is depthwise.
    """
    if "output_padding" not in call:
        return dict(call)
    x, weight = call["input"], call["weight"]
    spatial = weight.dim() - 2
    stride, padding, extra, dilation = (
        sizes(call.get(name, default), spatial)
        for name, default in (("stride", 1), ("padding", 0), ("output_padding", 0), ("dilation", 1))
    )
    lengths = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], stride, strict=True)]
    spread = x.new_zeros(*x.shape[:2], *lengths)
    spread[(..., *(slice(None, None, s) for s in stride))] = x
    pads: list[int] = []
    for k, d, p, e in reversed(list(zip(weight.shape[2:], dilation, padding, extra, strict=True))):
        pads += [d * (k - 1) - p, d * (k - 1) - p + e]
    kept = {"bias": call.get("bias"), "dilation": dilation, "groups": call.get("groups", 1)}
    return {"input": F.pad(spread, pads), "weight": forward_weight(call, weight), **kept}


def forward_weight(call: Call, weight: Tensor) -> Tensor:
    """Convert a call's weight to or from that of the equivalent convolution, see `forward_form`; its own inverse.

    The kernel of a transposed convolution is flipped, and input and output channels are swapped; those of a depthwise
    one are the same.
    """
    if "output_padding" not in call:
        return weight
    flipped = weight.flip(tuple(range(2, weight.dim())))
    return flipped.transpose(0, 1) if call.get("groups", 1) == 1 else flipped


class Patches:
    """Random output positions of one contraction, and the input vectors there; the positions serve several networks.

    Args:
        call: The call, in forward form: a linear layer, or a convolution in any number of dimensions.
        per_example: Maximum number of positions per example, drawn without repetition.
        generator: CPU generator that draws the positions.

    Attributes:
        positions: Flat output positions `(examples, n)`; like all other tensors here, on the call's device.
    """

    def __init__(self, call: Call, per_example: int, generator: torch.Generator) -> None:
        x, weight = call["input"], call["weight"]
        self.kernel = tuple(weight.shape[2:])
        self.linear = weight.dim() == 2
        spatial = weight.dim() - 2
        self.stride = sizes(call.get("stride", 1), spatial)
        self.dilation = sizes(call.get("dilation", 1), spatial)
        self.padding = _padding(call.get("padding", 0), self.kernel, self.dilation)
        if self.linear:
            self.out: tuple[int, ...] = (math.prod(x.shape[1:-1]),)
        else:
            self.out = tuple(
                (n + before + after - d * (k - 1) - 1) // s + 1
                for n, (before, after), d, k, s in zip(
                    x.shape[2:], self.padding, self.dilation, self.kernel, self.stride, strict=True
                )
            )
        self.positions = draw_positions(len(x), math.prod(self.out), per_example, generator).to(x.device)
        self._first, self._offsets, self._outside = self._pixels(x.shape[2:])

    def _pixels(self, size: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the pixels that each position reads: its first pixel and the kernel's offsets, in the flattened input.

        Args:
            size: Size of the input's spatial dimensions.

        Returns:
            First pixels `(examples, n)`, offsets `(kernel,)`, and a mask `(examples, n, kernel)` of padding pixels.
        """
        place, step, device = self.positions, 1, self.positions.device
        first, offsets = torch.zeros_like(place), torch.zeros(1, dtype=torch.int64, device=device)
        outside = torch.zeros(*place.shape, 1, dtype=torch.bool, device=device)
        for dim in reversed(range(len(self.kernel))):
            start = place % self.out[dim] * self.stride[dim] - self.padding[dim][0]
            place = place // self.out[dim]
            along = torch.arange(self.kernel[dim], device=device) * self.dilation[dim]
            first = first + start * step
            offsets = (along[:, None] * step + offsets).flatten()
            at = start[:, :, None] + along
            outside = (((at < 0) | (at >= size[dim]))[..., None] | outside[:, :, None]).flatten(2)
            step *= size[dim]
        return first.int(), offsets.int(), outside

    @property
    def nbytes(self) -> int:
        """Memory of the tensors, bytes."""
        return sum(kept.nbytes for kept in (self.positions, self._first, self._outside))

    def taps(self, x: Tensor, examples: slice = slice(None)) -> Tensor:
        """Return the channel vectors `(n, kernel, C_in)` that each kernel position reads, for the given examples.

        This is fastest in channels-last memory format.
        """
        if self.linear:
            return self.outputs(x, examples)[:, None]
        x, first, outside = x[examples], self._first[examples], self._outside[examples]
        pixels = x.movedim(1, -1).reshape(-1, x.shape[1])
        size = len(pixels) // len(x)
        first = first + torch.arange(0, len(pixels), size, dtype=first.dtype, device=first.device)[:, None]
        index = (first[:, :, None] + self._offsets).clamp_(0, len(pixels) - 1).flatten()
        found = pixels.index_select(0, index)
        found.index_fill_(0, outside.flatten().nonzero().flatten(), 0)
        return found.reshape(-1, len(self._offsets), x.shape[1])

    def inputs(self, x: Tensor, examples: slice = slice(None)) -> Tensor:
        """Return input vectors `(n, C_in * kernel)`, channels first, for the given examples.

        Multiplied by the weight flattened to `(C_out, C_in * kernel)`, they give the outputs at the positions
        (without bias, for one group).
        """
        return self.taps(x, examples).transpose(1, 2).flatten(1)

    def outputs(self, y: Tensor, examples: slice = slice(None)) -> Tensor:
        """Return the channel vectors `(n, C)` at the positions of a map with the output's shape."""
        y, positions = y[examples], self.positions[examples]
        vectors = (y if self.linear else y.movedim(1, -1)).reshape(-1, y.shape[-1 if self.linear else 1])
        size = len(vectors) // len(y)
        index = positions + torch.arange(0, len(vectors), size, device=positions.device)[:, None]
        return vectors.index_select(0, index.flatten())


def sample_patches(call: Call, per_example: int, generator: torch.Generator) -> Tensor:
    """Return input vectors `(n, C_in * kernel)` of a contraction at random output positions, see `Patches`."""
    return Patches(call, per_example, generator).inputs(call["input"])


def sample_channels(x: Tensor, channels: int, per_example: int, generator: torch.Generator) -> Tensor:
    """Return channel vectors `(n, channels)` of an input `(B, channels, ...)` at random positions of each example.

    All elements after the channels are positions; for a linear layer behind a flattened map, `channels` is the number
    of channels of that map.
    """
    vectors = x.reshape(len(x), channels, -1)
    positions = draw_positions(len(x), vectors.shape[2], per_example, generator).to(x.device)
    return vectors.gather(2, positions[:, None, :].expand(-1, channels, -1)).transpose(1, 2).reshape(-1, channels)


def draw_positions(examples: int, available: int, wanted: int, generator: torch.Generator) -> Tensor:
    """Draw positions `(examples, n)` without repetition within an example, n = min(available, wanted)."""
    if available <= wanted:
        return torch.arange(available).expand(examples, -1)
    return torch.rand(examples, available, generator=generator).topk(wanted).indices


def sizes(value: int | Iterable[int], spatial: int) -> tuple[int, ...]:
    """Return one size for each spatial dimension."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * spatial if len(values) == 1 else values


def _padding(padding: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the padding before and after each spatial dimension."""
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(p, p) for p in sizes(0 if padding == "valid" else padding, len(kernel))]
