"""Fusion of convolutions with the following addition and activation, on CPUs.

Small networks spend a third of a forward pass on reading and writing feature maps for additions and activations.
oneDNN does both while a convolution's outputs are still in registers. torch.compile uses the same operators, but takes
minutes to compile a forward pass of a second.

`fuse_convolutions` rewrites the torch.fx graph of a network: `act(conv(x))`, `conv(x) + y` and `act(conv(x) + y)`
become one node if nothing else reads the intermediate results. Networks that torch.fx cannot trace, and machines
without oneDNN, keep their operators: the outputs differ by rounding only, and the forward pass is slower.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from gnnrl_lightning.surgery.vanished import STANDING_IN


@dataclass(frozen=True)
class Activation:
    """An activation that can be fused into a convolution.

    Attributes:
        name: Its name in oneDNN.
        function: The function that it computes.
        constants: Constants of the function, in oneDNN's order.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    constants: tuple[float, ...] = ()


NONE = Activation("none", lambda x: x)
RELU, RELU6 = Activation("relu", F.relu), Activation("hardtanh", F.relu6, (0.0, 6.0))
HARDSWISH, SILU = Activation("hardswish", F.hardswish), Activation("swish", F.silu)

AFTER_ADDITION = (RELU,)
"""Activations that oneDNN's convolution applies after an addition; others are applied to its result."""

MODULES: dict[type[nn.Module], Activation] = {nn.ReLU: RELU, nn.ReLU6: RELU6, nn.Hardswish: HARDSWISH, nn.SiLU: SILU}
"""Module type -> activation to fuse. Subclasses are not fused: they may compute something else."""

FUNCTIONS: dict[Any, Activation] = {
    "relu": RELU,
    torch.relu: RELU,
    F.relu: RELU,
    F.relu6: RELU6,
    F.hardswish: HARDSWISH,
    F.silu: SILU,
}
"""Function, or name of a method -> activation to fuse."""

ADDITIONS = (operator.add, torch.add, "add")
IN_PLACE_ADDITIONS = (operator.iadd, "add_")

READING = frozenset((*ADDITIONS, operator.getitem, getattr, F.pad, F.max_pool2d, F.avg_pool2d, torch.cat))
"""Functions that do not modify their arguments."""


class FusedConvolution(nn.Module):
    """`act(conv(x) + other)` in a single pass over the outputs.

    Args:
        convolution: The convolution; its weight is shared.
        activation: The activation to apply.
    """

    def __init__(self, convolution: nn.Conv2d, activation: Activation) -> None:
        super().__init__()
        self.convolution, self.activation = convolution, activation
        padding = convolution.padding
        assert not isinstance(padding, str)
        self.geometry = list(padding), list(convolution.stride), list(convolution.dilation), convolution.groups

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Map `x` `(B, C_in, H, W)` and the optional summand `(B, C_out, H', W')` to `(B, C_out, H', W')`."""
        # Unfused if there is no batch dimension, or if the summand needs broadcasting or conversion.
        if x.dim() != 4 or (other is not None and (other.shape != self._shape(x) or other.dtype != x.dtype)):
            outputs = self.convolution(x)
            return self.activation.function(outputs if other is None else outputs + other)
        convolution = self.convolution.weight, self.convolution.bias, *self.geometry
        name, constants = self.activation.name, list(self.activation.constants)
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *convolution, name, constants, "")
        within = self.activation in AFTER_ADDITION
        summed = torch.ops.mkldnn._convolution_pointwise.binary(
            x, other, *convolution, "add", 1.0, name if within else None, constants if within else [], ""
        )
        return summed if within else self.activation.function(summed)

    def _shape(self, x: Tensor) -> tuple[int, ...]:
        padding, stride, dilation, _ = self.geometry
        kernel = self.convolution.kernel_size
        sides = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(x.shape[2:], padding, dilation, kernel, stride, strict=True)
        )
        return len(x), self.convolution.out_channels, *sides


class _Proxy(fx.Proxy):
    """A value during tracing that records in-place operators as such.

    torch.fx records `y += x` as `y = y + x`, which aliases of y would not see.
    """


def _in_place(function: Any) -> Any:
    def record(self: _Proxy, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return record


for _name in ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor"):
    setattr(_Proxy, f"__{_name}__", _in_place(getattr(operator, _name)))


class _Tracer(fx.Tracer):
    """A tracer that records in-place operations as such."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one node: those of PyTorch are, and those in the place of removed layers."""
        return isinstance(m, STANDING_IN) or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


def can_fuse(network: nn.Module) -> bool:
    """Whether the convolutions of this network can be fused on the device that it is on."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return False
    dtypes = {torch.float32}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        dtypes.add(torch.bfloat16)
    return all(weight.device.type == "cpu" and weight.dtype in dtypes for weight in network.parameters())


def fuse_convolutions(network: nn.Module) -> nn.Module:
    """Return the network with fused convolutions. It reuses the given network's modules: do not use that one again.

    Args:
        network: A network in evaluation mode with folded batch norms.
    """
    if not can_fuse(network) or any(map(hooked, network.modules())):  # torch.fx does not see what hooks do
        return network
    try:
        graph = _Tracer().trace(network)
    except Exception:  # the network's own code may raise anything when called with proxies
        return network
    modules = dict(network.named_modules())
    _drop_identities(graph, modules)
    for node in list(graph.nodes):
        chain = _chain(node, modules)
        if chain is not None:
            name = f"fused_{node.name}"
            modules[name] = FusedConvolution(chain.convolution, chain.activation)
            network.add_module(name, modules[name])
            _replace(graph, node, chain, name)
    return fx.GraphModule(network, graph)


@dataclass
class _Chain:
    """A convolution and the nodes to fuse with it."""

    convolution: nn.Conv2d
    nodes: list[fx.Node] = field(default_factory=list)  # the nodes after it
    other: fx.Node | None = None
    activation: Activation = NONE


def _chain(node: fx.Node, modules: Mapping[str, nn.Module]) -> _Chain | None:
    """Return the nodes that can be fused with the convolution at `node`, or None."""
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    if not isinstance(module, nn.Conv2d) or type(module) is not nn.Conv2d:
        return None
    if isinstance(module.padding, str) or module.padding_mode != "zeros" or len(node.args) != 1 or node.kwargs:
        return None
    chain = _Chain(module)
    follower = _follower(node, chain, modules)
    several = module.out_channels > 1  # older oneDNN cannot add to a single channel, and little would be gained
    if several and follower is not None and _is_addition_to(follower, node):
        left, right = follower.args
        other = right if left is node else left
        if isinstance(other, fx.Node) and other is not node:
            chain.other = other
            chain.nodes.append(follower)
            follower = _follower(node, chain, modules)
    activation = None if follower is None else _activation(follower, modules)
    if follower is not None and activation is not None:
        chain.activation = activation
        chain.nodes.append(follower)
    return chain if chain.nodes else None


def _follower(node: fx.Node, chain: _Chain, modules: Mapping[str, nn.Module]) -> fx.Node | None:
    """Return the only reader of a chain's last node if the convolution can be moved there, else None.

    It can be moved if no node in between writes into a tensor that it reads.
    """
    last = chain.nodes[-1] if chain.nodes else node
    if len(last.users) != 1:
        return None
    follower = between = next(iter(last.users))
    while (between := between.prev) is not node:
        if between not in chain.nodes and _writes(between, modules):
            return None
    return follower


def _replace(graph: fx.Graph, node: fx.Node, chain: _Chain, name: str) -> None:
    """Replace a chain by one call at the position of its last node."""
    last = chain.nodes[-1]
    with graph.inserting_before(last):
        arguments = (node.args[0],) if chain.other is None else (node.args[0], chain.other)
        made = graph.create_node("call_module", name, arguments)
    last.replace_all_uses_with(made)
    for gone in (*reversed(chain.nodes), node):
        graph.erase_node(gone)


def _called(node: fx.Node) -> Any:
    """Return the called function, or the name of the called method."""
    return node.target if node.op in ("call_function", "call_method") else None


def _is_addition_to(node: fx.Node, output: fx.Node) -> bool:
    """Whether a node adds a value to `output` without modifying any other tensor."""
    if _called(node) not in (*ADDITIONS, *IN_PLACE_ADDITIONS) or len(node.args) != 2 or node.kwargs:
        return False
    return node.args[0] is output or _called(node) in ADDITIONS


def _activation(node: fx.Node, modules: Mapping[str, nn.Module]) -> Activation | None:
    if node.op == "call_module":
        return MODULES.get(type(modules[str(node.target)]))
    plain = len(node.args) == 1 and node.kwargs.keys() <= {"inplace"}
    return FUNCTIONS.get(_called(node)) if plain and _called(node) is not None else None


def _writes(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a node may modify its arguments; true for unknown functions."""
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_")
    if node.op == "call_function":
        in_place = len(node.args) > 1 or node.kwargs.get("inplace")
        known = node.target in READING or (node.target in FUNCTIONS and not in_place)
        return not known
    return False


def hooked(module: nn.Module) -> bool:
    """Whether a module has hooks that are called in its forward pass."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _drop_identities(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> None:
    for node in list(graph.nodes):
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if type(module) is nn.Identity and len(node.args) == 1:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
