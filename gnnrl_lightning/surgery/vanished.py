"""What takes the place of the layers of channel groups that are removed entirely.

A layer whose output channels are all gone gives a tensor without channels, so that the code between the layers runs as
before; operators on such tensors compute nothing, and `torch.export` drops them. A layer whose input channels are all
gone gives its bias at every position: zero input channels have no padding that could show. The batch norm after it
reads one position and gives its output to all. Neither computes anything that depends on the network's input.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = {kind.forward for kind in (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)}
"""Forward passes of the layers that can be replaced: subclasses with their own may compute something else."""

NORMS = nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.PReLU
"""Layers with parameters that neither change shapes nor accept tensors without channels."""


@dataclass(frozen=True)
class Geometry:
    """The positions at which a layer gives outputs; a linear layer has no spatial dimensions.

    Attributes:
        kernel: Kernel size of each spatial dimension.
        stride: Stride of each.
        padding: Padding of each, both sides together.
        dilation: Dilation of each.
        extra: Output padding of each, of a transposed convolution.
        transposed: Whether it is a transposed convolution.
    """

    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    extra: tuple[int, ...] = ()
    transposed: bool = False

    @classmethod
    def of(cls, layer: nn.Module) -> Geometry:
        """The geometry of a linear layer or convolution."""
        if not isinstance(layer, nn.modules.conv._ConvNd):
            return cls()
        reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        named = {"same": reach, "valid": [0] * len(reach)}
        padding = named[layer.padding] if isinstance(layer.padding, str) else [2 * p for p in layer.padding]
        kernel, stride, dilation = tuple(layer.kernel_size), tuple(layer.stride), tuple(layer.dilation)
        return cls(kernel, stride, tuple(padding), dilation, tuple(layer.output_padding), layer.transposed)

    def shape(self, given: Sequence[int], channels: int) -> tuple[int, ...]:
        """Shape of the layer's output for an input `(..., C, *positions)`, or `(..., C)` of a linear layer."""
        first = len(given) - len(self.kernel)
        rows = zip(given[first:], self.kernel, self.stride, self.padding, self.dilation, self.extra, strict=True)
        if self.transposed:
            sides = [(n - 1) * s - p + d * (k - 1) + e + 1 for n, k, s, p, d, e in rows]
        else:
            sides = [(n + p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d, _ in rows]
        return (*given[: first - 1], channels, *sides)


class WithoutOutputs(nn.Module):
    """Stands for a layer all of whose output channels are removed: it gives a tensor without channels.

    Args:
        geometry: The positions of the layer's outputs.
    """

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, *positions)` to `(B, 0, *positions of the layer)`."""
        return torch.empty(self.geometry.shape(x.shape, 0), dtype=_dtype(x), device=x.device)


class WithoutInputs(nn.Module):
    """Stands for a layer all of whose input channels are removed: it gives its bias at every position.

    Args:
        geometry: The positions of the layer's outputs.
        bias: The bias `(channels,)`, or zeros, which are no part of the network's state.
        written: Whether the network's code writes into the output, which then needs memory of its own.
    """

    bias: Tensor

    def __init__(self, geometry: Geometry, bias: Tensor, written: bool) -> None:
        super().__init__()
        self.geometry, self.written = geometry, written
        if isinstance(bias, nn.Parameter):
            self.bias = bias
        else:
            self.register_buffer("bias", bias, persistent=False)

    def extra_repr(self) -> str:
        """Return the number of channels, for `print`."""
        return f"{len(self.bias)}, bias={isinstance(self.bias, nn.Parameter)}"

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 0, *positions)` to `(B, channels, *positions of the layer)`."""
        return constant_output(self, x)

    def compute(self, x: Tensor) -> Tensor:
        """The output of `forward`."""
        # Cloned: a view of a parameter says that it requires a gradient even where none is computed.
        constant = _cast(self.bias.clone(), _dtype(x)).view(-1, *(1,) * len(self.geometry.kernel))
        return _spread(constant, self.geometry.shape(x.shape, len(self.bias)), self.written)


class ConstantNorm(nn.Module):
    """Stands for the batch norm after a `WithoutInputs`: its formula at one position, for all.

    In training, too, it reads its running statistics: those of a constant are no estimate of anything.

    Args:
        norm: The batch norm, with running statistics.
        written: As in `WithoutInputs`.
    """

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm, written: bool) -> None:
        super().__init__()
        self.eps, self.written = norm.eps, written
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean: Tensor
        self.running_var: Tensor
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer)

    def extra_repr(self) -> str:
        """Return the number of channels, for `print`."""
        return f"{len(self.running_mean)}"

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, *positions)`, the same at every position, to the same shape."""
        return constant_output(self, x)

    def compute(self, x: Tensor) -> Tensor:
        """The output of `forward`."""
        mean, variance = self.running_mean, self.running_var
        point = _cast(self.constant(x), mean.dtype)[None]
        y = F.batch_norm(point, mean, variance, self.weight, self.bias, eps=self.eps)
        return _spread(_cast(y, x.dtype).view(-1, *(1,) * (x.dim() - 2)), x.shape, self.written)

    @staticmethod
    def constant(x: Tensor) -> Tensor:
        """The constant `(C,)` of an input."""
        return x[(0, slice(None), *(0,) * (x.dim() - 2))]


class Unread(nn.Module):
    """Stands for a norm that only layers without outputs read: it gives its input, and is not trained.

    Args:
        norm: The norm; its parameters and buffers are kept under their names.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        for name, parameter in norm.named_parameters(recurse=False):
            self.register_parameter(name, nn.Parameter(parameter.detach(), requires_grad=False))
        for name, buffer in norm.named_buffers(recurse=False):
            self.register_buffer(name, buffer)

    def forward(self, x: Tensor) -> Tensor:
        """Return the input."""
        return x


CONSTANT = WithoutInputs, ConstantNorm
"""Modules whose outputs do not depend on their inputs' values."""

STANDING_IN = WithoutOutputs, Unread, *CONSTANT
"""All modules that take the place of others."""


def constant_output(module: WithoutInputs | ConstantNorm, x: Tensor) -> Tensor:
    """Output of a module of `CONSTANT`; like torch's own functions it can be observed by a `TorchFunctionMode`."""
    if has_torch_function((x,)):
        return handle_torch_function(constant_output, (x,), module, x)
    return module.compute(x)


def replace_vanished(
    network: nn.Module,
    norms: Mapping[str, str],
    readers: Mapping[str, Collection[str]],
    written: Collection[str],
) -> None:
    """Replace the layers of a pruned network that have no channels left on one side, in place.

    Layers that cannot be replaced stay: the network then fails, as the self-test of the groups shows.

    Args:
        network: The network.
        norms: Path of a layer -> path of the batch norm that is its only reader.
        readers: Path of a norm -> paths of the layers that alone read it.
        written: Paths of the modules into whose outputs the network's code writes.
    """
    modules = dict(network.named_modules(remove_duplicate=False))
    made: dict[int, nn.Module] = {}
    for path, module in modules.items():
        if path and id(module) not in made and (found := _stand_in(module, path in written)) is not None:
            made[id(module)] = found
    for path, norm_path in norms.items():
        norm = modules.get(norm_path)
        constant = isinstance(made.get(id(modules.get(path))), WithoutInputs)
        if constant and isinstance(norm, nn.modules.batchnorm._BatchNorm) and _is_plain(norm):
            made[id(norm)] = ConstantNorm(norm, norm_path in written)
    for path, layers in readers.items():
        module = modules.get(path)
        unread = all(isinstance(made.get(id(modules.get(layer))), WithoutOutputs) for layer in layers)
        if unread and module is not None and id(module) not in made and isinstance(module, NORMS):
            made[id(module)] = Unread(module)
    for path, module in modules.items():
        if id(module) in made:
            network.set_submodule(path, made[id(module)].train(module.training))


def _stand_in(module: nn.Module, written: bool) -> nn.Module | None:
    """Return what takes the place of a module without channels on one side; None: it stays."""
    if isinstance(module, NORMS):
        held = (module.weight, getattr(module, "running_mean", None))
        return nn.Identity() if any(tensor is not None and not tensor.numel() for tensor in held) else None
    if type(module).forward not in LAYERS:
        return None
    weight: Any = module.weight
    if weight.numel():
        return None
    outputs, inputs = (1, 0) if isinstance(module, TRANSPOSED) else (0, 1)
    geometry, bias = Geometry.of(module), module.bias
    if not weight.shape[outputs]:
        return WithoutOutputs(geometry)
    if weight.shape[inputs]:
        return None
    zeros = torch.zeros(weight.shape[outputs], dtype=weight.dtype, device=weight.device)
    return WithoutInputs(geometry, bias if isinstance(bias, nn.Parameter) else zeros, written)


def _is_plain(norm: nn.modules.batchnorm._BatchNorm) -> bool:
    """Whether a batch norm is PyTorch's own, with running statistics."""
    return type(norm).forward is nn.modules.batchnorm._BatchNorm.forward and norm.running_mean is not None


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast a tensor; exported programs do not show casts to the type that it has."""
    return x if x.dtype == dtype else x.to(dtype)


def _spread(constant: Tensor, shape: Sequence[int], written: bool) -> Tensor:
    spread = constant.expand(shape)
    return spread.contiguous() if written else spread


def _dtype(x: Tensor) -> torch.dtype:
    """The type of a layer's output."""
    kind = x.device.type
    casts = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if casts and x.dtype == torch.float32 else x.dtype
