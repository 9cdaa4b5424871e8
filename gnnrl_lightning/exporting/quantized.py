"""Networks with weights and activations in int8: ONNX Runtime's static quantisation, calibrated on examples.

Every operator that ONNX Runtime can quantise stands between a pair of operators that round its inputs (QDQ); weights
are stored as int8, with a scale for each output channel, and activations as uint8 between the smallest and the largest
value of the calibration examples. Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018.

ONNX Runtime's kernels for uint8 activations and int8 weights are the fast ones on x86. On processors without VNNI their
sums of two products saturate beyond 16 bits; weights have seven bits there, with which they do not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import nn

from gnnrl_lightning.errors import UserError, first_line
from gnnrl_lightning.exporting.onnx_runtime import Session, translated
from gnnrl_lightning.exporting.program import ANY
from gnnrl_lightning.trees import Tree, layout, split, take, tensors

BATCH = 32
"""Calibration examples in a forward pass, unless the network's code fixes its batch."""


class Quantized:
    """A network in int8, run by ONNX Runtime on the CPU.

    Args:
        model: The ONNX model.
        laid_out: Layout of its inputs, see `gnnrl_lightning.trees.layout`.
        notes: Batch sizes and nested outputs, as the format `onnx` notes them.

    Attributes:
        model: The ONNX model.
        notes: The notes.
    """

    def __init__(self, model: bytes, laid_out: Mapping[str, Any], notes: dict[str, Any]) -> None:
        self.model, self.notes = model, notes
        self._session = Session(model, laid_out, notes["outputs"])

    def __call__(self, *inputs: Tree, **named: Tree) -> Tree:
        """Run the network on a batch of inputs, see `Session`."""
        return self._session(*inputs, **named)


def quantized(network: nn.Module, examples: Tree) -> Quantized:
    """Quantise the weights and activations of a network.

    Args:
        network: The network, on the CPU.
        examples: Normalised inputs to calibrate on, examples first.

    Raises:
        UserError: It cannot be written as ONNX, or ONNX Runtime quantises none of its operators.
    """
    program, notes = translated(network, take(examples, slice(1)))
    model = program.model_proto
    batches = _Batches([value.name for value in model.graph.input], examples, BATCH if notes["batch"] == ANY else 1)
    try:
        found = _quantized(model, batches)
    except Exception as error:  # ONNX Runtime has errors of its own for each case
        raise UserError(f"the network cannot be written in int8: {first_line(error)}; choose another format") from error
    if all(node.op_type != "QuantizeLinear" for node in found.graph.node):
        raise UserError(
            "the network cannot be written in int8: ONNX Runtime quantises none of its operators; choose another format"
        )
    notes = {**notes, "weight_bits": 7 if sums_saturate() else 8}
    return Quantized(found.SerializeToString(), layout(examples), notes)


@cache
def sums_saturate() -> bool:
    """Whether ONNX Runtime's sums of two products of uint8 and int8 saturate on this processor."""
    from onnx import TensorProto, helper
    from onnxruntime import InferenceSession

    inputs = [helper.make_tensor_value_info("a", TensorProto.UINT8, [1, 2])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 1])]
    weights = [helper.make_tensor("b", TensorProto.INT8, [2, 1], [127, 127])]
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["a", "b"], ["y"])], "sum", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"a": np.full((1, 2), 255, np.uint8)})
    return int(np.asarray(found).item()) != 2 * 255 * 127


class _Batches:
    """Calibration examples as ONNX Runtime reads them: name of each input -> array, then None."""

    def __init__(self, names: Sequence[str], examples: Tree, size: int) -> None:
        self._names, self._batches = names, split(examples, size)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        if batch is None:
            return None
        return dict(zip(self._names, [tensor.numpy() for tensor in tensors(batch)], strict=True))


def _quantized(model: Any, batches: _Batches) -> Any:
    """Return the quantised model, a `ModelProto`."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "model.onnx"
        quantize_static(
            model,
            path,
            batches,  # pyright: ignore[reportArgumentType]  (its protocol)
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=sums_saturate(),
        )
        return onnx.load(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out ONNX Runtime's advice to optimise the model before: the exporter has folded what can be folded."""
    former = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(former)
