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
from dataclasses import dataclass
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

Made = tuple[Callable[..., Any], tuple[Tensor, ...]]
"""A function and its inputs."""


@dataclass(frozen=True)
class Form:
    """An operator, apart from its numbers of channels.

    Attributes:
        name: Its name in ATen, with an underscore if it writes in place.
        reads: Shapes of what it reads for one example, with 0 in place of the channels.
        writes: Shape of what it writes, likewise.
        settings: Hyper-parameters of a convolution or linear layer, by name.
        module: The module that calls it, if that is one of PyTorch without parameters and buffers.
    """

    name: str
    reads: tuple[tuple[int, ...], ...]
    writes: tuple[int, ...]
    settings: tuple[tuple[str, Any], ...] = ()
    module: nn.Module | None = None

    @property
    def key(self) -> str:
        """Name of its grid in the table: operator, hyper-parameters, positions."""
        settings = [f"{name} {_text(value)}" for name, value in self.settings if value not in UNSAID.get(name, ())]
        positions = [_text(tuple(n for n in shape if n)) for shape in (*self.reads, self.writes)]
        sizes = positions[:1] if len(set(positions)) == 1 else ["+".join(positions[:-1]), "to", positions[-1]]
        return " ".join(part for part in (self.name, *settings, *sizes) if part)

    @property
    def blocks(self) -> int:
        """Number of blocks of a grouped convolution, 1 for others; 0 if each channel is a block (depthwise)."""
        return dict(self.settings).get("groups", 1)

    def made(self, inputs: int, outputs: int, batch: int) -> Made:
        """Make the operator with these channels, and a batch of inputs.

        Args:
            inputs: Input channels; those of a depthwise convolution, and of what has no weights, follow the outputs.
            outputs: Output channels.
            batch: Examples.
        """
        weighted = self.name in CONVOLUTIONS or self.name == "linear"
        read = inputs if weighted and self.blocks else outputs
        given = tuple(torch.full((batch, *(n or read for n in shape)), 0.5) for shape in self.reads)
        return self._function(inputs, outputs), given

    def _function(self, inputs: int, outputs: int) -> Callable[..., Any]:
        settings, dims = dict(self.settings), len(self.writes) - 1
        if self.name in CONVOLUTIONS:
            blocks = settings.pop("groups", 1)
            sizes = (inputs, outputs) if blocks else (outputs, outputs)
            return _layer(CONVOLUTIONS[self.name], *sizes, groups=blocks or outputs, **settings)
        if self.name == "linear":
            return _layer(nn.Linear, inputs, outputs, **settings)
        if self.name == "batch_norm":
            return _layer(BATCH_NORMS[dims], outputs)
        if self.name in ("layer_norm", "rms_norm"):
            return _layer(nn.LayerNorm if self.name == "layer_norm" else nn.RMSNorm, outputs)
        if self.name in ("group_norm", "instance_norm"):
            return _layer(nn.GroupNorm, 1 if self.name == "group_norm" else outputs, outputs)
        if self.module is not None:
            return self.module
        if self.name == "cat":
            return lambda *parts: torch.cat(parts, 1)
        if self.name == "mean":
            kept = len(self.writes)
            return lambda x: x.flatten(kept + 1).mean(-1)
        function = getattr(torch.ops.aten, self.name, None)
        plain = len(self.reads) if self.writes in self.reads else 0
        if function is not None and plain in (1, 2) and _takes(function, plain):
            return function
        return torch.clone  # of what it reads: it costs at least the traffic of the memory


def _layer(kind: type[nn.Module], *args: Any, **settings: Any) -> nn.Module:
    """Make a layer with equal weights: random ones take long to make, and the times are the same."""
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


def _text(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def operator_uses(graph: ComputationGraph, network: nn.Module) -> list[tuple[Use, Form]]:
    """Return the operators of a network that take time, with their rows of the table, in order.

    Args:
        graph: The traced network.
        network: The network; hyper-parameters that the graph does not have are read from its modules.
    """
    dense, found = graph.channels(graph.widths[None])[0].tolist(), []
    for number, operator in enumerate(graph.operators):
        form = _form(graph, network, operator, dense)
        if form.name.rstrip("_") in VIEWS or not form.reads:
            continue
        two = form.name in CONVOLUTIONS or form.name == "linear"
        source = operator.inputs[0] if two and form.blocks else None
        found.append((Use(number, form.key, source, operator.output), form))
    return found


def _form(graph: ComputationGraph, network: nn.Module, operator: Operator, dense: list[int]) -> Form:
    path, _, node = operator.name.rpartition(":")
    name, maps = re.sub(r"_\d+$", "", node), graph.feature_maps
    last = name in CHANNELS_LAST
    reads = tuple(_blank(maps[n].shape, dense[n], last) for n in operator.inputs)
    writes = _blank(maps[operator.output].shape, dense[operator.output], last)
    module = _caller(network, path)
    if operator.kind == "conv":
        # Convolutions of other names are `aten.convolution` with computed weights.
        name = name if name in CONVOLUTIONS else f"conv{len(writes) - 1}d"
        depthwise = operator.groups > 1 and operator.groups == dense[operator.inputs[0]] == dense[operator.output]
        settings = _convolution(operator, module, reads[0], writes) | {"groups": 0 if depthwise else operator.groups}
        return Form(name, reads[:1], writes, tuple(settings.items()))
    if operator.kind == "linear":
        return Form("linear", reads[:1], writes, (("bias", getattr(module, "bias", None) is not None),))
    own = type(module).__module__.startswith("torch.nn.")
    leaf = module is not None and not [*module.children(), *module.parameters(), *module.buffers()]
    return Form(name, reads, writes, (), module if own and leaf else None)


def _caller(network: nn.Module, path: str) -> nn.Module | None:
    """Return the module of this path; None if there is none, or it is the network itself."""
    try:
        return network.get_submodule(path) if path else None
    except AttributeError:
        return None


def _blank(shape: tuple[int, ...], channels: int, last: bool) -> tuple[int, ...]:
    """Return a shape with 0 in place of its channels: the first dimension of as many, or the last one."""
    places = [place for place, size in enumerate(shape) if size == channels]
    if not places:
        return shape
    place = places[-1 if last else 0]
    return (*shape[:place], 0, *shape[place + 1 :])


def _convolution(
    operator: Operator, module: nn.Module | None, reads: tuple[int, ...], writes: tuple[int, ...]
) -> dict[str, Any]:
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
