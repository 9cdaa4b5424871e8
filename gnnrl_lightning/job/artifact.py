"""The artifact: a pruned network in a folder, with all it takes to use and to check it.

`weights.safetensors` and `recipe.json` are the route without pickle: the network's own class, pruned again by
the recorded indices. `model.pt2` is an exported program that needs torch alone; such files contain pickled
parts and count as trusted code. Hashes detect damage, not malice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.graph import ComputationGraph, Plan, trace
from gnnrl_lightning.job.runs import versions
from gnnrl_lightning.networks import eval_mode, load_weights

WEIGHTS, RECIPE, PROGRAM = "weights.safetensors", "recipe.json", "model.pt2"
FORMAT = 1
REQUIRED: dict[str, type] = {"fingerprint": str, "keep": list} | dict.fromkeys(
    ("network", "kept", "input", "program", "budget", "transform", "figures", "sha256"), dict
)
# Exported kernels may add in another order than eager ones: outputs agree to this share of the largest.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Description:
    """What the recipe says besides the indices.

    Args:
        network: Class path and arguments of the dense network.
        budget: The budget that was met.
        transform: What has to be done to an image before the network reads it.
        figures: Measured figures of the pruned network.
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
    graph: ComputationGraph,
    plan: Plan,
    example: Tensor,
    description: Description,
) -> None:
    """Write a pruned network, and read it back in both ways to see that it computes the same.

    Args:
        folder: Folder to write; made if it is not there.
        network: The pruned network.
        dense: The dense network that it was made of, with any weights.
        graph: The dense network's graph.
        plan: The channels that were kept.
        example: One batch of images, shape (B, C, H, W).
        description: What else the recipe says.

    Raises:
        RuntimeError: If a way of loading does not give back what was saved.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Tied tensors are written once for each name: loading them back by name needs no knowledge of the ties.
    state = network.state_dict()
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    save_file(tensors, folder / WEIGHTS)
    batch = _export(network, example, folder / PROGRAM)
    recipe = {
        "format": FORMAT,
        "network": dict(description.network),
        "fingerprint": graph.fingerprint,
        "keep": list(graph.kept),
        "kept": {name: indices.tolist() for name, indices in plan.kept.items()},
        "input": {"shape": list(example.shape[1:]), "dtype": str(example.dtype).removeprefix("torch.")},
        "program": {"batch": batch},
        "budget": dict(description.budget),
        "transform": dict(description.transform),
        "figures": dict(description.figures),
        "versions": versions(),
        "sha256": {name: _sha256((folder / name).read_bytes()) for name in (WEIGHTS, PROGRAM)},
    }
    recipe["sha256"][RECIPE] = _recipe_hash(recipe)
    (folder / RECIPE).write_text(json.dumps(recipe, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    _verify("the class and the recipe", load(folder, dense, example), network, example)
    _verify("the exported program", load_exported(folder), network, example)


@dataclass(frozen=True)
class Restored:
    """A pruned network together with what it was made by.

    Args:
        network: The pruned network, in evaluation mode.
        graph: The dense network's graph.
        plan: The channels that were kept.
        recipe: The contents of recipe.json.
    """

    network: nn.Module
    graph: ComputationGraph
    plan: Plan
    recipe: Mapping[str, Any]


def restore(folder: str | Path, dense: nn.Module, example: Tensor) -> Restored:
    """Rebuild a pruned network from its class and the recipe, without pickle.

    Args:
        folder: Folder of the artifact.
        dense: The dense network's class, with any weights; it is not changed.
        example: Images of the size that the network reads, shape (B, C, H, W).

    Raises:
        UserError: If a file is missing or damaged, or the network is another one than was pruned.
    """
    folder = Path(folder)
    recipe = read_recipe(folder)
    _check(folder / WEIGHTS, recipe)
    graph = trace(dense, example, keep=recipe["keep"])
    if graph.fingerprint != recipe["fingerprint"]:
        raise UserError(f"{folder} was pruned from another network, with other channel groups than this one")
    kept = [torch.tensor(recipe["kept"][group.name]).view(group.sets, -1) for group in graph.groups]
    plan = graph.plan_from(kept)
    network = plan.apply(dense)
    load_weights(network, folder / WEIGHTS)
    return Restored(network.eval(), graph, plan, recipe)


def load(folder: str | Path, dense: nn.Module, example: Tensor) -> nn.Module:
    """The network of `restore`."""
    return restore(folder, dense, example).network


def load_exported(folder: str | Path) -> nn.Module:
    """Load the exported program, which needs torch alone but must come from someone you trust.

    Args:
        folder: Folder of the artifact.

    Returns:
        A module that maps images (B, C, H, W) to the outputs of the pruned network.

    Raises:
        UserError: If a file is missing or damaged.
    """
    folder = Path(folder)
    _check(folder / PROGRAM, read_recipe(folder))
    return torch.export.load(folder / PROGRAM).module()


def read_recipe(folder: str | Path) -> dict[str, Any]:
    """Read and check recipe.json.

    Args:
        folder: Folder of the artifact.

    Raises:
        UserError: If it is missing, damaged or of another format.
    """
    path = Path(folder) / RECIPE
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{folder} has no {RECIPE}: it is not the folder of a pruned network") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(recipe, dict) or recipe.get("format") != FORMAT:
        raise UserError(f"{path} is not a recipe of format {FORMAT}")
    missing = [name for name, kind in REQUIRED.items() if not isinstance(recipe.get(name), kind)]
    if missing:
        raise UserError(f"{path} is damaged: it lacks {', '.join(missing)}")
    if recipe["sha256"].get(RECIPE) != _recipe_hash(recipe):
        raise UserError(f"{path} is damaged: it has been changed since it was written")
    return recipe


def _export(network: nn.Module, example: Tensor, path: Path) -> str:
    """Export the network and say for which batches the program is good."""
    # Batch 1 would be specialised, so two images; expand, because the values do not matter.
    pair = example[:1].expand(2, *example.shape[1:]).contiguous()
    with eval_mode(network):
        try:
            program = torch.export.export(network, (pair,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
        except (RuntimeError, ValueError, AssertionError):
            program = None  # code that fixes its batch cannot be traced for others
        free = program is not None and bool(program.range_constraints)
        if program is None or not free:
            program = torch.export.export(network, (example,))
    torch.export.save(program, path)
    return "any" if free else f"fixed at {len(example)}"


def _verify(way: str, loaded: nn.Module, network: nn.Module, example: Tensor) -> None:
    with eval_mode(network), torch.inference_mode():
        expected, found = network(example), loaded(example)
    error = float((expected - found).abs().max())
    if not error <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise RuntimeError(f"the network loaded from {way} differs by {error:.3g} from the one saved")


def _check(path: Path, recipe: Mapping[str, Any]) -> None:
    expected = recipe["sha256"].get(path.name)
    if not path.is_file():
        raise UserError(f"{path} is missing")
    found = _sha256(path.read_bytes())
    if found != expected:
        wanted = str(expected)[:12]
        raise UserError(f"{path} is damaged: its SHA-256 is {found[:12]}..., the recipe says {wanted}...")


def _recipe_hash(recipe: Mapping[str, Any]) -> str:
    hashes = {name: value for name, value in recipe["sha256"].items() if name != RECIPE}
    return _sha256(json.dumps({**recipe, "sha256": hashes}, sort_keys=True).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
