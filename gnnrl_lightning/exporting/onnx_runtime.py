"""ONNX files: written by PyTorch's exporter, run by ONNX Runtime."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind, TensorArgument
from torch.utils._pytree import tree_unflatten

from gnnrl_lightning.errors import UserError, check_installed, first_line
from gnnrl_lightning.exporting.program import exported, once
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
    check_installed(what, PACKAGES, "onnx")


def translated(network: nn.Module, example: Tree) -> tuple[Any, dict[str, Any]]:
    """Translate a network to ONNX, for any batch size if its code allows it.

    Args:
        network: The network.
        example: One batch of inputs.

    Returns:
        A `torch.onnx.ONNXProgram`, and the notes `batch`, see `exported`, and `outputs`, see `nested_outputs`.

    Raises:
        UserError: An operator has no translation, or an output is not a tensor.
    """
    return once(_translated, network, example)


def _translated(network: nn.Module, example: Tree) -> tuple[Any, dict[str, Any]]:
    program, notes = exported(network, example)
    return as_onnx(program), {**notes, "outputs": nested_outputs(program)}


def nested_outputs(program: ExportedProgram) -> Any:
    """Return the nested outputs of a program, the numbers of ONNX's outputs in place of tensors.

    Args:
        program: The program of a network.
    """
    structure = program.call_spec.out_spec
    assert structure is not None  # as of every program that was exported from a network
    return tree_unflatten(list(range(len(_outputs(program)))), structure)


def _outputs(program: ExportedProgram) -> list[Any]:
    return [spec.arg for spec in program.graph_signature.output_specs if spec.kind is OutputKind.USER_OUTPUT]


def as_onnx(program: ExportedProgram, optimize: bool = True) -> Any:
    """Translate an exported program to ONNX, a `torch.onnx.ONNXProgram`.

    Args:
        program: The program.
        optimize: Fold batch norms and constants. Without, initializers are the parameters and buffers, by name.

    Raises:
        UserError: An operator has no translation, or an output is not a tensor.
    """
    if not all(isinstance(output, TensorArgument) for output in _outputs(program)):
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
    """An ONNX model in ONNX Runtime, on the CPU.

    Args:
        model: Path of the file, or its contents.
        laid_out: Layout of the inputs for which it was exported, see `gnnrl_lightning.trees.layout`.
        outputs: The nested outputs, numbers in place of tensors, see `nested_outputs`.
        threads: Threads; None: one for each core.
    """

    def __init__(
        self, model: Path | bytes, laid_out: Mapping[str, Any], outputs: Any, threads: int | None = None
    ) -> None:
        self._laid_out, self._outputs = laid_out, outputs
        self._session = session(model if isinstance(model, bytes) else str(model), threads)

    def __call__(self, *inputs: Tree, **named: Tree) -> Tree:
        """Run the network on a batch of inputs, by position or by name as those for which it was exported."""
        found = self._session.run(None, fed(self._session, arguments(self._laid_out, inputs, named)))
        return nested(self._outputs, [torch.from_numpy(array) for array in found])


def arguments(laid_out: Mapping[str, Any], inputs: tuple[Tree, ...], named: Mapping[str, Tree]) -> list[Tensor]:
    """Return the tensors of a call in the order of a model's inputs.

    Args:
        laid_out: Layout of the inputs for which the model was exported.
        inputs: Arguments by position.
        named: Arguments by name, in any order.

    Raises:
        UserError: The model was exported for others.
    """
    given = inputs if not named else (*inputs, named) if inputs else named
    return list(_in_order({"tuple": [laid_out]} if "shape" in laid_out else laid_out, given))


def _in_order(laid_out: Mapping[str, Any], given: Tree) -> Iterator[Tensor]:
    """Yield the tensors of a tree in the order of its layout."""
    if "shape" in laid_out and isinstance(given, Tensor):
        yield given
    elif "dict" in laid_out and isinstance(given, dict) and given.keys() == laid_out["dict"].keys():
        for name, part in laid_out["dict"].items():
            yield from _in_order(part, given[name])
    elif "tuple" in laid_out and isinstance(given, (tuple, list)) and len(given) == len(laid_out["tuple"]):
        for part, item in zip(laid_out["tuple"], given, strict=True):
            yield from _in_order(part, item)
    else:
        wanted = "a tensor"
        if "dict" in laid_out:
            wanted = f"{', '.join(laid_out['dict'])} by name"
        elif "tuple" in laid_out:
            wanted = f"{len(laid_out['tuple'])} by position"
        raise UserError(f"the model was exported for other inputs than are given: expected {wanted}")


def nested(outputs: Any, found: Sequence[Tensor]) -> Tree:
    """Nest the outputs of a model as the network does.

    Args:
        outputs: The nested outputs, numbers in place of tensors, see `nested_outputs`.
        found: The outputs in order.
    """
    if isinstance(outputs, dict):
        return {name: nested(part, found) for name, part in outputs.items()}
    if isinstance(outputs, (list, tuple)):
        return tuple(nested(part, found) for part in outputs)
    return found[outputs]
