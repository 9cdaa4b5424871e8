"""The artifact: a folder with a pruned network and everything needed to load and verify it.

`recipe.json` records how the network was pruned; one more file is written for each requested format, see
`gnnrl_lightning.artifacts.formats.FORMATS`. `weights` (`weights.safetensors`) needs no pickle: it is loaded by pruning
the network's own class again with the recorded indices, step by step if the network was pruned more than once.
`program` (`model.pt2`) is an exported program that needs torch alone; such files contain pickled parts, so load only
files that you trust. Hashes detect damage, not malice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import torch
from torch import nn

from gnnrl_lightning.artifacts.formats import (
    DEFAULT_FORMATS,
    FORMATS,
    WEIGHTS,
    Format,
    check_exportable,
    find_formats,
    load_pruned,
)
from gnnrl_lightning.artifacts.integrity import file_of
from gnnrl_lightning.artifacts.recipe import FORMAT, RECIPE, check_probe, difference, probe, read_recipe, recipe_hash
from gnnrl_lightning.checks import as_path, instance, shown
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.exporting.program import exported_once
from gnnrl_lightning.files import finite, os_errors, replacing, sha256
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.networks import eval_mode
from gnnrl_lightning.surgery.plan import Plan
from gnnrl_lightning.trees import Tree, call, layout, tensors, zeros_of
from gnnrl_lightning.versions import versions


def step(graph: ComputationGraph, plan: Plan) -> dict[str, Any]:
    """The recipe's record of one pruning: fingerprint of the graph, layers that the user keeps, kept channels, masks.

    Args:
        graph: The graph of the network that was pruned.
        plan: The channels that were kept.
    """
    return {
        "fingerprint": graph.fingerprint,
        "keep": list(graph.kept),
        "kept": {name: indices.tolist() for name, indices in plan.kept.items()},
        "masks": dict(plan.masks),
    }


@dataclass(frozen=True)
class Description:
    """Contents of the recipe besides the indices.

    Args:
        network: Class path and arguments of the network that the first step pruned.
        budget: The budget that was met.
        transform: Preprocessing that turns an example into the network's input.
        figures: Measured figures of the pruned network; those that are NaN or infinite are written as null.
    """

    network: Mapping[str, Any]
    budget: Mapping[str, Any]
    transform: Mapping[str, Any]
    figures: Mapping[str, Any]


def save(
    folder: str | Path,
    network: nn.Module,
    *,
    dense: nn.Module,
    steps: Sequence[Mapping[str, Any]],
    example: Tree,
    description: Description,
    formats: Sequence[str] = DEFAULT_FORMATS,
    calibration: Callable[[], Tree] | None = None,
) -> dict[str, Callable[..., Tree]]:
    """Write a pruned network, then load every file and verify that its outputs agree.

    Outputs of lossy formats have to agree with those of the approximation that was written.

    Args:
        folder: Folder to write; created if it does not exist.
        network: The pruned network.
        dense: The network that the first step pruned, with any weights.
        steps: The prunings in order, see `step`.
        example: One batch of normalised inputs, see `gnnrl_lightning.trees.call`.
        description: The rest of the recipe.
        formats: Names of `FORMATS` or import paths.
        calibration: Returns the normalised training inputs on which lossy formats calibrate; None: `example`.

    Returns:
        Name of each format -> what was loaded from its file.

    Raises:
        UserError: A format is unknown or cannot hold what the network returns, or two formats write the same file.
        RuntimeError: The outputs of a loaded file differ from those of the network.
    """
    rows = find_formats(formats)
    folder = as_path("folder", folder, "folder")
    check_exportable(formats, network, example)
    folder.mkdir(parents=True, exist_ok=True)
    with exported_once():
        held = _held(rows, network, calibration or (lambda: example))
        notes = {name: _write(row, held[name], example, folder) for name, row in rows.items()}
    with eval_mode(network):
        probed = probe(network, layout(example))
    recipe = {
        "format": FORMAT,
        "network": dict(description.network),
        "steps": [dict(each) for each in steps],
        "input": layout(example),
        "probe": probed,
        "formats": notes,
        "budget": dict(description.budget),
        "transform": dict(description.transform),
        "figures": finite(description.figures),
        "versions": versions(),
        "sha256": {file: sha256(folder / file) for row in rows.values() for file in row.files},
    }
    recipe["sha256"][RECIPE] = recipe_hash(recipe)
    with replacing(folder / RECIPE) as partial:
        partial.write_text(json.dumps(recipe, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    loaded = {}
    for name, row in rows.items():
        loaded[name] = row.load(folder / row.file, read_recipe(folder), dense, example)
        _verify(f"{row.file} ({name})", loaded[name], held[name], example, row.tolerance)
    return loaded


def _held(
    rows: Mapping[str, Format], network: nn.Module, calibration: Callable[[], Tree]
) -> dict[str, Callable[..., Tree]]:
    """Return what each format holds: the network, or an approximation of it."""
    examples = calibration() if any(row.lossy for row in rows.values()) else None
    with eval_mode(network):
        return {
            name: network if row.approximate is None else row.approximate(network, examples)
            for name, row in rows.items()
        }


def _write(row: Format, held: Callable[..., Tree], example: Tree, folder: Path) -> dict[str, Any]:
    """Write what a format holds, and return the notes for the recipe."""
    beside = {"beside": list(row.beside)} if row.beside else {}
    probed = {"probe": probe(held, layout(example))} if row.lossy else {}
    with os_errors(folder / row.file):
        return {"file": row.file, **beside, **row.write(held, example, folder / row.file), **probed}


@dataclass(frozen=True)
class Restored:
    """A pruned network and its recipe.

    Args:
        network: The pruned network, in evaluation mode.
        recipe: The contents of recipe.json.
    """

    network: nn.Module
    recipe: Mapping[str, Any]


def restore(folder: str | Path, dense: nn.Module, example: Tree) -> Restored:
    """Rebuild a pruned network from its class and the recipe, without pickle.

    Args:
        folder: Folder of the artifact.
        dense: The network that the first step pruned, with any weights; it is not changed.
        example: Inputs of the shapes that the network reads.

    Raises:
        UserError: A file is missing or damaged, or the recipe belongs to a different network.
    """
    recipe = read_recipe(folder)
    path = file_of(Path(folder), recipe, WEIGHTS)
    instance("dense", dense, nn.Module, "the unpruned network, with any weights")
    _check_example(example)
    network = load_pruned(path, recipe, dense, example)
    check_probe(network, recipe, path)
    return Restored(network, recipe)


@overload
def load(folder: str | Path, dense: nn.Module, example: Tree | None = None) -> nn.Module: ...
@overload
def load(
    folder: str | Path, dense: nn.Module | None = None, example: Tree | None = None, *, format: str
) -> Callable[..., Tree]: ...
def load(
    folder: str | Path, dense: nn.Module | None = None, example: Tree | None = None, *, format: str = WEIGHTS
) -> Callable[..., Tree]:
    """Load a pruned network by the file of any of its formats, and compare its outputs with the recorded ones.

    ```
    smaller = load("runs/NAME/pruned", resnet20())  # the network's own class, pruned again
    run = load("runs/NAME/pruned", format="onnx")            # in ONNX Runtime, without the network's code
    ```

    Args:
        folder: Folder of the artifact.
        dense: The network that the first step pruned, with any weights; it is not changed. Needed by `weights`, and by
            formats of your own that store only weights.
        example: Inputs of the shapes that the network reads; None: of the shapes that were recorded.
        format: Name or import path of a format in which it was saved. `program` has pickled parts: load only trusted
            files.

    Returns:
        The pruned network in evaluation mode (`weights`, `program`), or a callable that maps a batch of inputs to its
        outputs. All but `weights` take inputs by position or by name as the job's data gave them to the network.

    Raises:
        UserError: A file is missing or damaged, the artifact was not saved in this format, or the network to prune
            again is missing or another one.
    """
    if dense is not None:
        instance("dense", dense, nn.Module, "the unpruned network, with any weights, or None")
    if example is not None:
        _check_example(example)
    recipe = read_recipe(folder)
    path = file_of(Path(folder), recipe, instance("format", format, str, "the name of a format"))
    given = zeros_of(recipe["input"]) if example is None else example
    row = FORMATS.find(format)
    loaded = row.load(path, recipe, dense, given)
    check_probe(loaded, recipe, path, format, row.tolerance)
    return loaded


def _check_example(example: Any) -> None:
    if not tensors(example):
        raise UserError(f"example is {shown(example)}: expected the network's inputs, a tensor or several of them")


def _verify(way: str, loaded: Callable[..., Tree], held: Callable[..., Tree], example: Tree, tolerance: float) -> None:
    with eval_mode(held) if isinstance(held, nn.Module) else nullcontext(), torch.inference_mode():
        expected, found = call(held, example), call(loaded, example)
    for wanted, given in zip(tensors(expected), tensors(found), strict=True):
        apart, largest = difference(given, wanted)
        if not apart <= tolerance * max(1.0, largest):
            raise RuntimeError(f"the network loaded from {way} differs by {apart:.3g} from the one saved")
