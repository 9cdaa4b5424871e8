"""OpenVINO IR: read from the ONNX model of a network, run by OpenVINO on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gnnrl_lightning.errors import UserError, check_installed, first_line
from gnnrl_lightning.exporting.onnx_runtime import arguments, nested
from gnnrl_lightning.trees import Tree

PACKAGES = ("onnx", "onnxscript", "openvino")
"""Packages of the extra `openvino`."""

PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}
"""Some processors would compute in bfloat16 otherwise."""


def check_openvino(what: str) -> None:
    """Refuse what needs OpenVINO if a package is missing.

    Args:
        what: What needs it, for the message.

    Raises:
        UserError: It names the packages that are missing, and the extra that brings them.
    """
    check_installed(what, PACKAGES, "openvino")


def write_ir(model: bytes, path: Path) -> None:
    """Write an ONNX model as OpenVINO IR with weights in float32: `path` and, beside it, the same name with `.bin`.

    Args:
        model: The ONNX model.
        path: The file, `.xml`.

    Raises:
        UserError: OpenVINO lacks an operator.
    """
    import openvino

    try:
        read = openvino.Core().read_model(model)
    except Exception as error:  # OpenVINO has errors of its own for each case
        raise UserError(
            f"the network cannot be written as OpenVINO IR: {first_line(error)}; choose another format"
        ) from error
    openvino.save_model(read, path, compress_to_fp16=False)


class Compiled:
    """A model in OpenVINO, on the CPU, computed in float32.

    Args:
        path: The file, `.xml` or `.onnx`.
        laid_out: Layout of the inputs for which it was exported, see `gnnrl_lightning.trees.layout`.
        outputs: The nested outputs, numbers in place of tensors, see `onnx_runtime.nested_outputs`.
        threads: Threads; None: as OpenVINO chooses.
    """

    def __init__(self, path: Path, laid_out: Mapping[str, Any], outputs: Any, threads: int | None = None) -> None:
        import openvino

        chosen = {} if threads is None else {"INFERENCE_NUM_THREADS": threads}
        self._laid_out, self._outputs = laid_out, outputs
        self._compiled = openvino.Core().compile_model(path, "CPU", PRECISION | chosen)

    def __call__(self, *inputs: Tree, **named: Tree) -> Tree:
        """Run the network on a batch of inputs, by position or by name as those for which it was exported."""
        given = [tensor.detach().cpu().numpy() for tensor in arguments(self._laid_out, inputs, named)]
        found = self._compiled(given)
        return nested(self._outputs, [torch.from_numpy(found[output]) for output in self._compiled.outputs])
