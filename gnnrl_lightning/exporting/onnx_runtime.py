"""ONNX files: written by PyTorch's exporter, run by ONNX Runtime."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind, TensorArgument
from torch.utils._pytree import tree_unflatten

from gnnrl_lightning.errors import UserError, first_line
from gnnrl_lightning.trees import Tree, tensors

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""Packages of the extra `onnx`."""


def check_onnx(what: str) -> None:
    """Refuse what needs ONNX if a package is missing.

    Args:
        what: What needs it, for the message.

    Raises:
        UserError: It names the packages that are missing, and the extra that brings them.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(f"{what} needs {', '.join(missing)}: pip install 'gnnrl-lightning[onnx]'")


def write_program_as_onnx(program: ExportedProgram, path: Path) -> dict[str, Any]:
    """Write an exported program as a single ONNX file.

    Args:
        program: The program.
        path: The file.

    Returns:
        Note for the recipe: the nested outputs, numbers in place of tensors.

    Raises:
        UserError: An operator has no translation.
    """
    outputs = [spec.arg for spec in program.graph_signature.output_specs if spec.kind is OutputKind.USER_OUTPUT]
    as_onnx(program).save(path, external_data=False)
    nested = program.call_spec.out_spec
    assert nested is not None  # as of every program that was exported from a network
    return {"outputs": tree_unflatten(list(range(len(outputs))), nested)}


def as_onnx(program: ExportedProgram, optimize: bool = True) -> Any:
    """Translate an exported program to ONNX, a `torch.onnx.ONNXProgram`.

    Args:
        program: The program.
        optimize: Fold batch norms and constants. Without, initializers are the parameters and buffers, by name.

    Raises:
        UserError: An operator has no translation, or an output is no tensor.
    """
    outputs = [spec.arg for spec in program.graph_signature.output_specs if spec.kind is OutputKind.USER_OUTPUT]
    if not all(isinstance(output, TensorArgument) for output in outputs):
        raise UserError(
            "the network cannot be written as ONNX: it returns something other than tensors; choose another format or "
            "back end"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own deprecations
            return torch.onnx.export(program, (), dynamo=True, verbose=False, optimize=optimize)
    except Exception as error:
        raise UserError(
            f"the network cannot be written as ONNX: {first_line(error)}; choose another format or back end"
        ) from error


def session(model: str | bytes, threads: int | None = None) -> Any:
    """Open an ONNX model in ONNX Runtime on the CPU, an `onnxruntime.InferenceSession`.

    Args:
        model: Path of the file, or its contents.
        threads: Threads; None: one for each core.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    if threads is not None:
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def fed(opened: Any, inputs: Tree) -> dict[str, Any]:
    """Return what a session is to be fed with: the name of each input -> array.

    Args:
        opened: The session.
        inputs: Arguments of the network.
    """
    given = [tensor.detach().cpu().numpy() for tensor in tensors(inputs)]
    return dict(zip([each.name for each in opened.get_inputs()], given, strict=True))


class Session:
    """An ONNX file in ONNX Runtime, on the CPU.

    Args:
        path: The file.
        outputs: The nested outputs, numbers in place of tensors, as `write_program_as_onnx` notes them.
    """

    def __init__(self, path: Path, outputs: Any) -> None:
        self._outputs, self._session = outputs, session(str(path))

    def __call__(self, *inputs: Tree, **named: Tree) -> Tree:
        """Run the network on a batch of inputs, as its `forward` takes them."""
        found = self._session.run(None, fed(self._session, (inputs, named)))
        return _filled(self._outputs, [torch.from_numpy(array) for array in found])


def _filled(outputs: Any, found: list[torch.Tensor]) -> Tree:
    """Nested outputs with their tensors."""
    if isinstance(outputs, dict):
        return {name: _filled(part, found) for name, part in outputs.items()}
    if isinstance(outputs, (list, tuple)):
        return tuple(_filled(part, found) for part in outputs)
    return found[outputs]
