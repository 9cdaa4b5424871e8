"""The operators of a network as small networks of their own, with any number of channels, to be measured alone.

```
for use, form in operator_uses(graph, network):
    run, inputs = form.made(inputs=16, outputs=32, batch=64)
    run(*inputs)
```
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl_lightning.cost.latency import Use
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.tracing.topology import Operator

CONVOLUTIONS: Mapping[str, type[nn.Module]] = {
    f"conv{kind}{n}d": getattr(nn, f"Conv{name}{n}d")
    for kind, name in (("", ""), ("_transpose", "Transpose"))
    for n in (1, 2, 3)
}
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
"""By the number of dimensions of the positions."""

VIEWS = frozenset(
    "alias chunk detach dropout expand flatten getitem permute reshape select size slice split split_with_sizes "
    "squeeze transpose unbind unsqueeze view _unsafe_view".split()
)
"""Operators that compute nothing in evaluation mode."""

CHANNELS_LAST = ("linear", "layer_norm", "rms_norm")
"""Operators whose channels are the last dimension."""

UNSAID: Mapping[str, tuple[Any, ...]] = {
    "dilation": ((1,), (1, 1), (1, 1, 1)),
    "output_padding": ((0,), (0, 0), (0, 0, 0)),
    "bias": (False,),
    "groups": (1,),
}
"""Hyper-parameters that are left out of a key."""

PRODUCTS = ("bmm", "matmul", "scaled_dot_product_attention")
"""Operators that multiply what they read with one another."""

Shape = tuple[int | Fraction, ...]
"""Sizes for one example; a fraction is the share of the number of channels."""

Made = tuple[Callable[..., Any], tuple[Tensor, ...]]
"""A function and its inputs."""


@dataclass(frozen=True)
class Form:
    """An operator, apart from its numbers of channels.

    Attributes:
        name: Its name in ATen, with an underscore if it writes in place.
        reads: Shapes of what it reads for one example: as fractions of its own channels for a layer, of those that it
            writes for others.
        writes: Shape of what it writes.
        settings: Hyper-parameters of a convolution or linear layer, by name.
        module: The module that calls it, if that is one of PyTorch without parameters and buffers.
        copied: Whether copying what it reads stands for it: how to call it is not known. It costs at least the traffic
            of the memory, and the fit to whole networks makes up for some of the rest.
    """

    name: str
    reads: tuple[Shape, ...]
    writes: Shape
    settings: tuple[tuple[str, Any], ...] = ()
    module: nn.Module | None = None
    copied: bool = False

    @property
    def key(self) -> str:
        """Name of its grid in the table: operator, hyper-parameters, positions."""
        settings = [f"{name} {_text(value)}" for name, value in self.settings if value not in UNSAID.get(name, ())]
        positions = [_positions(shape) for shape in (*self.reads, self.writes)]
        sizes = positions[:1] if len(set(positions)) == 1 else ["+".join(positions[:-1]), "to", positions[-1]]
        return " ".join(part for part in (self.name, *settings, *sizes) if part)

    @property
    def blocks(self) -> int:
        """Number of blocks of a grouped convolution, 1 for others; 0 if each channel is a block (depthwise)."""
        return dict(self.settings).get("groups", 1)

    @property
    def layer(self) -> bool:
        """Whether it is a layer with weights between its channels."""
        return not self.copied and (self.name in CONVOLUTIONS or self.name == "linear")

    def made(self, inputs: int, outputs: int, batch: int, device: str = "cpu") -> Made:
        """Make the operator with these channels, and a batch of inputs.

        Args:
            inputs: Input channels; those of a depthwise convolution, and of what has no weights, follow the outputs.
            outputs: Output channels.
            batch: Examples.
            device: Where it is made.
        """
        inputs, outputs = self._whole(inputs), self._whole(outputs)
        read = inputs if self.layer and self.blocks else outputs
        given = tuple(torch.full((batch, *_sizes(shape, read)), 0.5, device=device) for shape in self.reads)
        return self._function(inputs, outputs, device), given

    def runs(self, inputs: int, outputs: int) -> bool:
        """Whether it runs with these channels, and gives the shape that it writes; nothing is computed."""
        try:
            function, given = self.made(inputs, outputs, 1, "meta")
            with torch.inference_mode():
                found = function(*given)
        except (RuntimeError, TypeError, ValueError):
            return False
        expected = (1, *_sizes(self.writes, self._whole(outputs)))
        return isinstance(found, Tensor) and tuple(found.shape) == expected

    def _whole(self, channels: int) -> int:
        """Round up to the same number of channels in each block."""
        blocks = max(self.blocks, 1) if self.layer else 1
        return -(-channels // blocks) * blocks

    def _function(self, inputs: int, outputs: int, device: str) -> Callable[..., Any]:
        settings, dims = {**dict(self.settings), "device": device}, len(self.writes) - 1
        if self.copied:
            return lambda *read: [each.clone() for each in read]
        if self.name in CONVOLUTIONS:
            blocks = settings.pop("groups", 1)
            sizes = (inputs, outputs) if blocks else (outputs, outputs)
            return _layer(CONVOLUTIONS[self.name], *sizes, groups=blocks or outputs, **settings)
        if self.name == "linear":
            return _layer(nn.Linear, inputs, outputs, **settings)
        if self.name == "batch_norm":
            return _layer(BATCH_NORMS[dims], outputs, device=device)
        if self.name in ("layer_norm", "rms_norm"):
            return _layer(nn.LayerNorm if self.name == "layer_norm" else nn.RMSNorm, outputs, device=device)
        if self.name in ("group_norm", "instance_norm"):
            return _layer(nn.GroupNorm, 1 if self.name == "group_norm" else outputs, outputs, device=device)
        if self.module is not None:
            return self.module
        if self.name == "mean":
            kept = len(self.writes)
            return lambda x: x.flatten(kept + 1).mean(-1)
        function = getattr(torch.ops.aten, self.name, None)
        if function is None or not (self.name in PRODUCTS or _takes(function, len(self.reads))):
            raise TypeError(f"how {self.name} is called is not known")
        return function


def _layer(kind: type[nn.Module], *args: Any, **settings: Any) -> nn.Module:
    """Make a layer with equal weights on a device: random ones take long to make, and the times are the same."""
    made = nn.utils.skip_init(kind, *args, **settings).eval().requires_grad_(False)
    for tensor in (*made.parameters(), *made.buffers()):
        tensor.fill_(1 / 64 if tensor.is_floating_point() else 0)
    return made


def _takes(function: Any, tensors: int) -> bool:
    """Whether an operator can be called with this number of tensors and nothing else."""
    for name in function.overloads():
        needed = [a for a in getattr(function, name)._schema.arguments if not a.has_default_value()]
        if len(needed) == tensors and all(str(argument.type) == "Tensor" for argument in needed):
            return True
    return False


def _positions(shape: Shape) -> str:
    """Return the sizes that are no channels, and what share of the channels there is if it is not all."""
    return "x".join(str(size) if isinstance(size, int) else f"({size})" for size in shape if size != Fraction(1))


def _text(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def operator_uses(graph: ComputationGraph, network: nn.Module) -> list[tuple[Use, Form]]:
    """Return the operators of a network that take time, with their rows of the table, in order.

    Args:
        graph: The traced network.
        network: The network; hyper-parameters that the graph does not have are read from its modules.
    """
    dense, smallest = graph.channels(torch.stack([graph.widths, torch.ones_like(graph.widths)])).tolist()
    found = []
    for number, operator in enumerate(graph.operators):
        form = _form(graph, network, operator, dense)
        if form.name.rstrip("_") in VIEWS or not form.reads:
            continue
        ends = [[channels[n] for n in (operator.inputs[0], operator.output)] for channels in (dense, smallest)]
        if not all(form.runs(*each) for each in ends):
            form = replace(form, reads=_read(graph, operator, dense, dense[operator.output]), copied=True)
        source = operator.inputs[0] if form.layer and form.blocks else None
        found.append((Use(number, form.key, source, operator.output), form))
    return found


def _read(graph: ComputationGraph, operator: Operator, dense: list[int], per: int, last: bool = False) -> Any:
    """Shapes of what an operator reads, as fractions of a number of channels."""
    return tuple(_shape(graph.feature_maps[n].shape, dense[n], per, last) for n in operator.inputs)


def _form(graph: ComputationGraph, network: nn.Module, operator: Operator, dense: list[int]) -> Form:
    path, _, node = operator.name.rpartition(":")
    name, maps = re.sub(r"_\d+$", "", node), graph.feature_maps
    last, first, written = name in CHANNELS_LAST, operator.inputs[0], dense[operator.output]
    writes = _shape(maps[operator.output].shape, written, written, last)
    own = (_shape(maps[first].shape, dense[first], dense[first], last),)
    module = _caller(network, path)
    if operator.kind == "conv":
        # Convolutions of other names are `aten.convolution` with computed weights.
        name = name if name in CONVOLUTIONS else f"conv{len(writes) - 1}d"
        depthwise = operator.groups > 1 and operator.groups == dense[first] == written
        settings = _convolution(operator, module, own[0], writes) | {"groups": 0 if depthwise else operator.groups}
        return Form(name, own, writes, tuple(settings.items()))
    if operator.kind == "linear" and len(operator.inputs) == 1:
        bias = isinstance(module, nn.Linear) and module.bias is not None
        return Form("linear", own, writes, (("bias", bias),))
    reads = _read(graph, operator, dense, written, last)
    torchs = type(module).__module__.startswith("torch.nn.")
    leaf = module is not None and not [*module.children(), *module.parameters(), *module.buffers()]
    return Form(name, reads, writes, (), module if torchs and leaf else None)


def _caller(network: nn.Module, path: str) -> nn.Module | None:
    """Return the module of this path; None if there is none, or it is the network itself."""
    try:
        return network.get_submodule(path) if path else None
    except AttributeError:
        return None


def _shape(shape: tuple[int, ...], channels: int, per: int, last: bool) -> Shape:
    """Return a shape whose channels are a share of a number of channels.

    Channels are the first dimension of as many, or the last one. If several dimensions hold them together, as heads and
    their widths do, the first one of these changes with them.

    Args:
        shape: Shape for one example.
        channels: Its number of channels.
        per: The number of which the fraction is a share.
        last: Whether channels are the last dimension of as many.
    """
    places = [place for place, size in enumerate(shape) if size == channels]
    together = [place for place, size in enumerate(shape) if size > 1 and channels % size == 0]
    if not places and len(together) < 2:
        return shape
    place = places[-1 if last else 0] if places else together[0]
    return (*shape[:place], Fraction(shape[place], per), *shape[place + 1 :])


def _sizes(shape: Shape, channels: int) -> tuple[int, ...]:
    """Return the sizes of a shape with a number of channels, each at least 1."""
    return tuple(max(round(size * channels), 1) if isinstance(size, Fraction) else size for size in shape)


def _convolution(operator: Operator, module: nn.Module | None, reads: Shape, writes: Shape) -> dict[str, Any]:
    """Return the hyper-parameters of a convolution: those of its module, or those that its sizes suggest."""
    if isinstance(module, tuple(CONVOLUTIONS.values())):
        names = ("kernel_size", "stride", "padding", "dilation")
        own = ("output_padding",) if "Transpose" in type(module).__name__ else ()
        return {name: getattr(module, name) for name in (*names, *own)} | {"bias": module.bias is not None}
    dims = len(writes) - 1
    kernel, stride = operator.kernel[-dims:], operator.stride[-dims:]
    needed = [(out - 1) * s + k - n for out, s, k, n in zip(writes[1:], stride, kernel, reads[1:], strict=False)]
    return {
        "kernel_size": kernel,
        "stride": stride,
        "padding": tuple(max(n + 1, 0) // 2 for n in needed),
        "dilation": (1,) * dims,
        "bias": False,
    }
