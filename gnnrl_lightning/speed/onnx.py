"""ONNX Runtime as a back end, on the CPU.

ONNX Runtime folds batch norms, fuses activations and additions into convolutions, and computes them in a blocked layout
of channels. So the operators of its table are chains, see `joined`, each in an ONNX model of its own.

PyTorch's exporter takes ten seconds for a network of some size. Networks that differ in their widths alone have the
same ONNX graph but for weights and groups, so one is exported, and the others are filled in, see `Template`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from gnnrl_lightning.errors import UserError, first_line
from gnnrl_lightning.exporting.onnx_runtime import as_onnx, check_onnx, fed, session
from gnnrl_lightning.exporting.program import exported
from gnnrl_lightning.networks.copies import independent_copy
from gnnrl_lightning.speed.backend import FEW_POINTS, Backend, Pass, Prepared
from gnnrl_lightning.speed.inference import fold_batch_norm
from gnnrl_lightning.speed.joined import as_module, joined_uses
from gnnrl_lightning.trees import Tree, call, map_tensors, tensors

CLOSE = 1e-3
"""Largest difference of outputs from those of PyTorch, relative to the largest output."""


class Template:
    """The ONNX model of a network, into which others of other widths are filled in.

    Args:
        network: The network.
        inputs: One batch of inputs.

    Attributes:
        model: The model, of any batch if its code allows it.

    Raises:
        UserError: It cannot be exported.
    """

    def __init__(self, network: nn.Module, inputs: Tree) -> None:
        self._norms = _norms(exported(network, inputs)[0])
        self.model = as_onnx(exported(self._folded(network), inputs)[0], optimize=False).model_proto

    def _folded(self, network: nn.Module) -> nn.Module:
        """Fold batch norms, as the exporter does, but so that initializers keep the names of parameters."""
        folded = independent_copy(network)
        for path, norm_path in self._norms:
            fold_batch_norm(folded, path, norm_path)
        return folded

    def filled(self, network: nn.Module, inputs: Tree) -> bytes | None:
        """Return the model of a network with the same graph; None if its graph is another one.

        Args:
            network: The network, on the CPU.
            inputs: One batch of inputs, for which the outputs must be those of the network.
        """
        from onnx import ModelProto, numpy_helper

        folded = self._folded(network)
        weights = _weights(folded)
        model = ModelProto()
        model.CopyFrom(self.model)
        graph = model.graph
        for tensor in graph.initializer:
            if tensor.name in weights:
                tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name].detach().numpy(), tensor.name))
        for node in graph.node:
            _regroup(node, folded)
        del graph.value_info[:]
        for value in graph.output:
            value.type.tensor_type.ClearField("shape")
        for value, given in zip(graph.input, tensors(inputs), strict=True):
            for dimension, size in zip(value.type.tensor_type.shape.dim, given.shape, strict=True):
                dimension.dim_value = size
        found = model.SerializeToString()
        return found if _agree(found, network, inputs) else None


def _norms(program: ExportedProgram) -> list[tuple[str, str]]:
    """Return the paths of layers and of the batch norms that are their only readers."""
    signature, found = program.graph_signature, []
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    for node in program.graph.nodes:
        before = node.args[0] if node.target is torch.ops.aten.batch_norm.default else None
        if isinstance(before, Node) and before.op == "call_function" and len(before.users) == 1:
            if any(len(each.users) > 1 for each in (*before.args[1:3], *node.args[1:5]) if isinstance(each, Node)):
                continue  # the layer or the norm is used elsewhere, too
            if before.target is torch.ops.aten.linear.default and before.meta["val"].dim() > 2:
                continue  # the norm is over a sequence
            read = [names.get(getattr(each, "name", ""), "") for each in (*before.args[1:2], node.args[3])]
            if len(read) == 2 and all(read):
                found.append(tuple(name.rpartition(".")[0] for name in read))
    return found


def _weights(network: nn.Module) -> Mapping[str, Tensor]:
    """All parameters and buffers by name, whether saved with the network or not."""
    return {**dict(network.named_parameters(remove_duplicate=False)), **dict(network.named_buffers())}


def _regroup(node: Any, network: nn.Module) -> None:
    """Set the groups of a convolution to those of its module: a depthwise one has as many as channels."""
    if node.op_type not in ("Conv", "ConvTranspose"):
        return
    path = node.input[1].rpartition(".")[0]
    try:
        groups = getattr(network.get_submodule(path), "groups", None)
    except AttributeError:
        return  # its weights are computed
    for attribute in node.attribute:
        if attribute.name == "group" and groups is not None:
            attribute.i = groups


def _agree(model: bytes, network: nn.Module, inputs: Tree) -> bool:
    """Whether a model computes what the network computes, for random inputs of the same shapes."""
    generator = torch.Generator().manual_seed(0)
    inputs = map_tensors(
        lambda each: torch.randn(each.shape, generator=generator) if each.is_floating_point() else each, inputs
    )
    with torch.no_grad():
        expected = tensors(call(network, inputs))
    try:
        opened = session(model, threads=1)
        found = [torch.from_numpy(array) for array in opened.run(None, fed(opened, inputs))]
    except Exception:  # a size in the graph depends on the widths: ONNX Runtime has errors of its own for each case
        return False
    return len(found) == len(expected) and all(map(_close, found, expected))


def _close(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    return torch.allclose(found.double(), expected.double(), rtol=0, atol=CLOSE * max(largest, 1e-6), equal_nan=True)


class OnnxRuntime:
    """Prepares networks as ONNX models.

    Args:
        threads: Threads of a session.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._templates: dict[str, Template] = {}

    def __call__(self, network: Callable[..., Any], inputs: Tree, key: str) -> Prepared:
        """See `backend.Prepare`."""
        model = self._model(as_module(network), inputs, key)
        return lambda given: self._loaded(model, given)

    def _model(self, network: nn.Module, inputs: Tree, key: str) -> bytes:
        known = self._templates.get(key)
        model = None if known is None else known.filled(network, inputs)
        if model is None:
            self._templates[key] = Template(network, inputs)
            model = self._templates[key].model.SerializeToString()
        return model

    def _loaded(self, model: bytes, inputs: Tree) -> Pass:
        try:
            opened = session(model, self.threads)
            arrays = fed(opened, inputs)
            opened.run(None, arrays)
        except Exception as error:  # ONNX Runtime has errors of its own for each case
            raise UserError(
                f"latency.backend onnxruntime cannot run the network ({first_line(error)}): choose another back end"
            ) from error
        return lambda: opened.run(None, arrays)


def _check(precision: str, device: torch.device) -> None:
    check_onnx("latency.backend onnxruntime")
    if precision != "32":
        raise UserError(f"latency.precision is {precision}: latency.backend onnxruntime expects 32")


def _versions() -> dict[str, str]:
    return {"onnxruntime": version("onnxruntime")}


ONNX_RUNTIME = Backend(OnnxRuntime, _check, _versions, joined_uses, FEW_POINTS, device=torch.device("cpu"), keeps=True)
