"""Export formats: the files in which a pruned network is delivered, by name or import path.

```
FORMATS.register("mine", Format("mine.bin", write, load))  # then by name in Python and YAML
```
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.exporting.onnx_runtime import Session, check_onnx, write_program_as_onnx
from gnnrl_lightning.exporting.program import exported
from gnnrl_lightning.graph import trace
from gnnrl_lightning.job.recipe import kept_channels
from gnnrl_lightning.networks import load_weights
from gnnrl_lightning.registry import Registry
from gnnrl_lightning.trees import Tree


def _nothing() -> None:
    """Every installation can write it."""


@dataclass(frozen=True)
class Format:
    """A file that holds a pruned network.

    Attributes:
        file: Its name in the artifact's folder.
        write: `(network, example, path)`: writes a network; `example` is one batch of inputs, see
            `gnnrl_lightning.trees.call`. It returns notes for the recipe, in plain JSON types.
        load: `(path, recipe, dense, example)`: reads the file and returns a callable that maps a batch of inputs to
            the outputs of the network. `dense` is the dense network with any weights, or None; formats that store only
            weights need it.
        tolerance: Largest difference of outputs after loading, relative to the largest output.
        check: Raises `UserError` if the file cannot be written, for instance because a library is missing; called
            before the search.
    """

    file: str
    write: Callable[[nn.Module, Tree, Path], Mapping[str, Any]]
    load: Callable[[Path, Mapping[str, Any], nn.Module | None, Tree], Callable[..., Tree]]
    tolerance: float = 1e-4
    check: Callable[[], None] = _nothing


def _as_format(given: Any) -> Format:
    if not isinstance(given, Format):
        raise TypeError(f"expected a Format, not a {type(given).__name__}")
    return given


FORMATS: Registry[Format] = Registry("export format", _as_format)
"""Name -> format."""


def write_weights(network: nn.Module, example: Tree, path: Path) -> dict[str, Any]:
    """Write the weights by name, without pickle."""
    # Tied tensors are written once for each name, so they can be loaded by name.
    state = network.state_dict()
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}, path)
    return {}


def load_pruned(path: Path, recipe: Mapping[str, Any], dense: nn.Module | None, example: Tree) -> nn.Module:
    """Prune the network's own class again by the recorded indices, and load the weights.

    Returns:
        The network in evaluation mode.

    Raises:
        UserError: There is no dense network, or the recipe belongs to a different one.
    """
    if dense is None:
        raise UserError(f"{path} stores only weights: give the dense network, with any weights, as dense=")
    network = dense
    for step in recipe["steps"]:
        graph = trace(network, example, keep=step["keep"])
        network = graph.plan_from(kept_channels(graph, step, path)).apply(network)
    load_weights(network, path)
    return network.eval()


def write_program(network: nn.Module, example: Tree, path: Path) -> dict[str, Any]:
    """Write the exported program; note the batch sizes that it accepts."""
    program, notes = exported(network, example)
    torch.export.save(program, path)
    return notes


def load_program(path: Path, recipe: Mapping[str, Any], dense: nn.Module | None, example: Tree) -> nn.Module:
    """Load the exported program. It needs torch alone, but must come from a trusted source."""
    return torch.export.load(path).module()


def write_onnx(network: nn.Module, example: Tree, path: Path) -> dict[str, Any]:
    """Write an ONNX file; note the batch sizes that it accepts, and how its outputs are nested."""
    program, notes = exported(network, example)
    return notes | write_program_as_onnx(program, path)


def load_onnx(path: Path, recipe: Mapping[str, Any], dense: nn.Module | None, example: Tree) -> Session:
    """Load an ONNX file in ONNX Runtime, on the CPU."""
    return Session(path, recipe["formats"]["onnx"]["outputs"])


# Exported kernels may sum in another order than eager ones.
FORMATS.register("weights", Format("weights.safetensors", write_weights, load_pruned))
FORMATS.register("program", Format("model.pt2", write_program, load_program))
FORMATS.register(
    "onnx", Format("model.onnx", write_onnx, load_onnx, tolerance=1e-3, check=partial(check_onnx, "the format onnx"))
)
