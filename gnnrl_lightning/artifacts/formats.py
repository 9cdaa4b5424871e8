"""Export formats: the files in which a pruned network is delivered, by name or import path.

```
FORMATS.register("mine", Format("mine.bin", write, load))  # then by name in Python and YAML
```
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gnnrl_lightning.artifacts.recipe import RECIPE, pruned_again
from gnnrl_lightning.checks import shown
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.exporting.onnx_runtime import Session, check_onnx, translated
from gnnrl_lightning.exporting.openvino_runtime import Compiled, check_openvino, write_ir
from gnnrl_lightning.exporting.program import check_outputs, exported
from gnnrl_lightning.exporting.quantized import Quantized, quantized
from gnnrl_lightning.module_state import state_tensors
from gnnrl_lightning.networks import load_weights
from gnnrl_lightning.registry import Registry
from gnnrl_lightning.tensor_files import save_tensors
from gnnrl_lightning.trees import Tree

WEIGHTS = "weights"
"""Name of the format that is loaded unless another one is named: the weights alone, for the network's own class."""

DEFAULT_FORMATS = (WEIGHTS, "program")


def _nothing() -> None:
    """Every installation can write it."""


@dataclass(frozen=True)
class Format:
    """A file that holds a pruned network.

    A lossy format, one with `approximate`, holds an approximation of the network: what is loaded is compared with that,
    and its score on the holdout is measured beside the network's, see `gnnrl_lightning.job.lossy`.

    Attributes:
        file: Its name in the artifact's folder.
        write: `(network, example, path)`: writes a network, or the approximation of a lossy format; `example` is one
            batch of inputs, see `gnnrl_lightning.trees.call`. It returns notes for the recipe, in plain JSON types.
        load: `(path, recipe, dense, example)`: reads the file and returns a callable that maps a batch of inputs to
            the outputs of the network. `dense` is the dense network with any weights, or None; formats that store only
            weights need it.
        tolerance: Largest difference of outputs after loading, relative to the largest output.
        check: Raises `UserError` if the file cannot be written, for instance because a library is missing; called
            before the search.
        beside: Names of the files that `write` writes beside `path`.
        approximate: `(network, examples)`: returns the approximation that a lossy format writes, a callable that maps a
            batch of inputs to outputs; `examples` are normalised training inputs to calibrate on. None: the format
            holds the network itself.
        exports: Whether `write` exports the network, which has to return tensors in tuples, lists or dictionaries.
    """

    file: str
    write: Callable[[Any, Tree, Path], Mapping[str, Any]]
    load: Callable[[Path, Mapping[str, Any], nn.Module | None, Tree], Callable[..., Tree]]
    tolerance: float = 1e-4
    check: Callable[[], None] = _nothing
    beside: tuple[str, ...] = ()
    approximate: Callable[[nn.Module, Tree], Callable[..., Tree]] | None = None
    exports: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all its files."""
        return (self.file, *self.beside)

    @property
    def lossy(self) -> bool:
        """Whether it holds an approximation of the network."""
        return self.approximate is not None


def _as_format(given: Any) -> Format:
    if not isinstance(given, Format):
        raise TypeError(f"expected a Format, not a {type(given).__name__}")
    return given


FORMATS: Registry[Format] = Registry("export format", _as_format)
"""Name -> format."""


def write_weights(network: nn.Module, example: Tree, path: Path) -> dict[str, Any]:
    """Write the weights by name, without pickle."""
    save_tensors(state_tensors(network), path)
    return {}


def load_pruned(path: Path, recipe: Mapping[str, Any], dense: nn.Module | None, example: Tree) -> nn.Module:
    """Prune the network's own class again by the recorded indices, and load the weights.

    Returns:
        The network in evaluation mode.

    Raises:
        UserError: There is no dense network, or the recipe belongs to a different one.
    """
    if dense is None:
        raise UserError(
            f"{path} stores only weights: give the dense network, with any weights, as dense=, or the name of another "
            "format in which it was saved as format="
        )
    network = [dense, *(pruned for _, _, pruned in pruned_again(recipe["steps"], dense, example, path))][-1]
    load_weights(network, path)
    return network.eval()


def write_program(network: nn.Module, example: Tree, path: Path) -> dict[str, Any]:
    """Write the exported program; note the batch sizes that it accepts."""
    program, notes = exported(network, example)
    buffer = io.BytesIO()  # PyTorch's own writer of files aborts the process where a disk is full
    torch.export.save(program, buffer)
    path.write_bytes(buffer.getbuffer())
    return notes


def load_program(path: Path, recipe: Mapping[str, Any], dense: nn.Module | None, example: Tree) -> nn.Module:
    """Load the exported program. It needs torch alone, but must come from a trusted source."""
    return torch.export.load(path).module()


def write_onnx(network: nn.Module, example: Tree, path: Path) -> dict[str, Any]:
    """Write an ONNX file; note the batch sizes that it accepts, and how its outputs are nested."""
    program, notes = translated(network, example)
    program.save(path, external_data=False)
    return notes


def load_onnx(path: Path, recipe: Mapping[str, Any], dense: nn.Module | None, example: Tree) -> Session:
    """Load an ONNX file in ONNX Runtime, on the CPU."""
    return Session(path, recipe["input"], recipe["formats"]["onnx"]["outputs"])


def write_openvino(network: nn.Module, example: Tree, path: Path) -> dict[str, Any]:
    """Write OpenVINO IR by way of ONNX; note the batch sizes that it accepts, and how its outputs are nested."""
    program, notes = translated(network, example)
    write_ir(program.model_proto.SerializeToString(), path)
    return notes


def load_openvino(path: Path, recipe: Mapping[str, Any], dense: nn.Module | None, example: Tree) -> Compiled:
    """Load OpenVINO IR in OpenVINO, on the CPU."""
    return Compiled(path, recipe["input"], recipe["formats"]["openvino"]["outputs"])


def write_int8(network: Quantized, example: Tree, path: Path) -> dict[str, Any]:
    """Write the ONNX file of a network in int8; note the same as `write_onnx`."""
    path.write_bytes(network.model)
    return network.notes


def load_int8(path: Path, recipe: Mapping[str, Any], dense: nn.Module | None, example: Tree) -> Session:
    """Load the ONNX file of a network in int8 in ONNX Runtime, on the CPU."""
    return Session(path, recipe["input"], recipe["formats"]["int8"]["outputs"])


# Exported kernels may sum in another order than eager ones.
FORMATS.register("weights", Format("weights.safetensors", write_weights, load_pruned))
FORMATS.register("program", Format("model.pt2", write_program, load_program, exports=True))
FORMATS.register(
    "onnx",
    Format(
        "model.onnx",
        write_onnx,
        load_onnx,
        tolerance=1e-3,
        check=partial(check_onnx, "the format onnx"),
        exports=True,
    ),
)
FORMATS.register(
    "openvino",
    Format(
        "model.xml",
        write_openvino,
        load_openvino,
        tolerance=1e-3,
        check=partial(check_openvino, "the format openvino"),
        beside=("model.bin",),
        exports=True,
    ),
)
FORMATS.register(
    "int8",
    Format(
        "model.int8.onnx",
        write_int8,
        load_int8,
        check=partial(check_onnx, "the format int8"),
        approximate=quantized,
        exports=True,
    ),
)


def find_formats(names: Sequence[str], option: str | None = None) -> dict[str, Format]:
    """Return the formats by the names or import paths given.

    Args:
        names: Names of `FORMATS` or import paths.
        option: The option that lists them, for error messages.

    Raises:
        UserError: A format is unknown or cannot be written here, or two formats write the same file.
    """
    if isinstance(names, (str, bytes)) or not isinstance(names, Sequence):
        raise UserError(f"{option or 'formats'} is {shown(names)}: expected a list of {', '.join(FORMATS)}")
    if not names:
        raise UserError(f"{option or 'formats'} is empty: expected at least one of {', '.join(FORMATS)}")
    rows = {name: FORMATS.find(name, option) for name in names}
    files = [RECIPE, *(file for row in rows.values() for file in row.files)]
    if len(rows) < len(names) or len(set(files)) < len(files):
        raise UserError(f"{option or 'formats'} is {list(names)}: expected different formats, each with its own file")
    for row in rows.values():
        row.check()
    return rows


def check_exportable(formats: Sequence[str], network: nn.Module, example: Tree) -> None:
    """Refuse formats that cannot hold what a network returns.

    Args:
        formats: Names of `FORMATS` or import paths.
        network: The network, pruned or not.
        example: Normalised inputs, on the network's device.

    Raises:
        UserError: A format exports the network, and an exported program cannot return what it returns.
    """
    if any(row.exports for row in find_formats(formats).values()):
        check_outputs(network, example)
