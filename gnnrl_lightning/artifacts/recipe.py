"""The recipe of an artifact: how a network was pruned, checked when it is read."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl_lightning.checks import as_path
from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.files import text_of
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.surgery.plan import Plan
from gnnrl_lightning.tracer import trace
from gnnrl_lightning.tracing.groups import ChannelGroup
from gnnrl_lightning.trees import Tree, call, map_tensors, tensors, zeros_of

RECIPE = "recipe.json"
FORMAT = 4
"""Version of the recipe."""

PARTS: dict[str, type] = {"steps": list, "probe": list} | dict.fromkeys(
    ("network", "input", "formats", "budget", "transform", "figures", "sha256"), dict
)
STEP: dict[str, type] = {"fingerprint": str, "keep": list, "kept": dict}

LARGEST_INPUT = 2**28
"""Values in an example: 1 GiB in float32."""

PROBED = 16
"""Output values that the recipe records."""

TOLERANCE, LOSSY_TOLERANCE = 1e-2, 1e-1
"""Largest difference of these values after loading, relative to the largest one: machines sum in different orders.

In a lossy format, a sum that comes out differently may be rounded to the next step, layer by layer.
"""

LEAST, LOSSY_LEAST = 1e-3, 1.0
"""Smallest value to which differences are relative. Steps of a lossy format are as large as its calibration needs."""


def read_recipe(folder: str | Path) -> dict[str, Any]:
    """Read and check recipe.json.

    Args:
        folder: Folder of the artifact.

    Raises:
        UserError: It is missing, damaged or of another version.
    """
    folder = as_path("folder", folder, "folder")
    path = folder / RECIPE
    try:
        recipe = json.loads(text_of(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        inside = [each.parent for each in sorted(folder.glob(f"*/{RECIPE}"))]
        meant = f" (did you mean {inside[0]}?)" if inside else ""
        raise UserError(f"{folder} has no {RECIPE}{meant}: expected the folder of a pruned network") from error
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise UserError(f"{path} is damaged: {one_line(error)}; save the artifact again") from error
    version = recipe.get("format") if isinstance(recipe, dict) else None
    if version != FORMAT:
        newer = isinstance(version, int) and version > FORMAT
        remedy = "update gnnrl_lightning" if newer else "save the artifact again with this release"
        raise UserError(f"{path} is not a recipe of version {FORMAT}, but of {str(version)[:20]}: {remedy}")
    missing = [name for name, kind in PARTS.items() if not isinstance(recipe.get(name), kind)]
    if missing:
        raise UserError(f"{path} is damaged: it lacks {', '.join(missing)}; save the artifact again")
    if recipe["sha256"].get(RECIPE) != recipe_hash(recipe):
        raise UserError(f"{path} is damaged: it has been changed since it was written; save the artifact again")
    for wrong in _wrong(recipe):
        raise UserError(f"{path} is invalid: {wrong}; save the artifact again")
    return recipe


def files_of(note: Mapping[str, Any]) -> list[str]:
    """Return the names of the files of a format.

    Args:
        note: What the recipe notes of the format.
    """
    beside = note.get("beside", [])
    return [note["file"], *(beside if isinstance(beside, list) else [beside])]


def recipe_hash(recipe: Mapping[str, Any]) -> str:
    """The SHA-256 of a recipe without its own hash, hexadecimal."""
    hashes = {name: value for name, value in recipe["sha256"].items() if name != RECIPE}
    return hashlib.sha256(json.dumps({**recipe, "sha256": hashes}, sort_keys=True).encode()).hexdigest()


def _wrong(recipe: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the types and values of a recipe."""
    for name, note in recipe["formats"].items():
        for file in files_of(note) if isinstance(note, dict) and "file" in note else [None]:
            if not isinstance(file, str) or not file or Path(file).name != file:
                yield f"the format {name} has the file {file!r}, expected a plain name"
    for number, step in enumerate(recipe["steps"]):
        kinds = {name: step.get(name) for name in STEP} if isinstance(step, dict) else {}
        if not kinds or not all(isinstance(value, STEP[name]) for name, value in kinds.items()):
            yield f"step {number} lacks {', '.join(STEP)}"
    yield from _wrong_layout(recipe["input"])


def _wrong_layout(laid_out: Any) -> Iterator[str]:
    if not isinstance(laid_out, dict):
        yield f"an input is {laid_out!r}, expected its shape and dtype"
    elif isinstance(laid_out.get("dict"), dict) or isinstance(laid_out.get("tuple"), list):
        parts = laid_out["dict"].values() if "dict" in laid_out else laid_out["tuple"]
        for part in parts:
            yield from _wrong_layout(part)
    else:
        shape, dtype = laid_out.get("shape"), laid_out.get("dtype")
        whole = isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape)
        if not isinstance(shape, list) or not whole or math.prod(shape) > LARGEST_INPUT:
            yield f"an input has the shape {str(shape)[:60]}, expected positive sizes, {LARGEST_INPUT:,} values at most"
        if not isinstance(dtype, str) or not isinstance(getattr(torch, dtype, None), torch.dtype):
            yield f"an input has the type {dtype!r}, expected one of PyTorch"


def pruned_again(
    steps: Iterable[Mapping[str, Any]], network: nn.Module, example: Tree, path: Path
) -> Iterator[tuple[ComputationGraph, Plan, nn.Module]]:
    """Repeat the steps of a recipe; of each, yield the graph before it, what it keeps, and the pruned network.

    Args:
        steps: The steps.
        network: The network that the first one pruned; it is not changed.
        example: Inputs of the shapes that it reads.
        path: Where the steps come from, for messages.

    Raises:
        UserError: A step is of another network.
    """
    for step in steps:
        graph = trace(network, example, keep=step["keep"], passed=step["fingerprint"])
        plan = graph.plan_from(kept_channels(graph, step, path))
        network = plan.apply(network)
        yield graph, plan, network


def kept_channels(graph: ComputationGraph, step: Mapping[str, Any], path: Path) -> list[Tensor]:
    """Return the kept channels `(sets, width)` of each group.

    Args:
        graph: The graph of the network to prune.
        step: A step of the recipe.
        path: Where it comes from, for messages.

    Raises:
        UserError: The step is of another network, or a group's channels are missing, out of range, or not ascending.
    """
    if graph.fingerprint != step["fingerprint"]:
        raise UserError(
            f"{path} was pruned from a different network: its channel groups are not those of this one; "
            "give the dense network that it was made of"
        )
    given = [step["kept"].get(group.name) for group in graph.groups]
    found = [_kept(group, each, path) for group, each in zip(graph.groups, given, strict=True)]
    for number, ranks in enumerate(found):
        if not ranks.shape[1] and not graph.removable.groups[number]:
            raise _refused(graph.groups[number], given[number], path)
    return found


def _refused(group: ChannelGroup, given: Any, path: Path) -> UserError:
    return UserError(
        f"{path}: the recipe keeps {str(given)[:40]} of {group.name}: expected ascending channels from 0 to "
        f"{group.width - 1}; save the artifact again"
    )


def _kept(group: ChannelGroup, given: Any, path: Path) -> Tensor:
    ranks = torch.empty(0)
    try:
        kept = torch.tensor(given)
        kept = kept if kept.numel() else kept.long()  # the group is gone entirely
        ranks = kept.view(group.sets, kept.numel() // group.sets)
        known = kept.dtype == torch.int64
        fits = known and bool((ranks >= 0).all()) and bool((ranks < group.width).all())
        ascending = fits and bool((ranks[:, 1:] > ranks[:, :-1]).all())
    except (TypeError, ValueError, RuntimeError, OverflowError):
        ascending = False
    if not ascending:
        raise _refused(group, given, path)
    return ranks


def probe(network: Callable[..., Tree], laid_out: Mapping[str, Any]) -> list[list[float]]:
    """Return the first values of a network's outputs for an input that its layout determines.

    They tell whether what is loaded computes what was saved, whatever the reason if it does not.

    Args:
        network: Maps inputs to outputs, in evaluation mode, on the CPU.
        laid_out: Layout of an example, see `gnnrl_lightning.trees.layout`.
    """
    with torch.inference_mode():
        outputs = call(network, map_tensors(_ramp, zeros_of(laid_out)))
    return [torch.nan_to_num(output.double()).flatten()[:PROBED].tolist() for output in tensors(outputs)]


def check_probe(
    network: Callable[..., Tree], recipe: Mapping[str, Any], path: Path, name: str = "weights", tolerance: float = 0
) -> None:
    """Refuse a loaded network that does not compute what was saved.

    Args:
        network: The network.
        recipe: The recipe.
        path: What was loaded, for the message.
        name: Name of its format; lossy ones have a probe of their own.
        tolerance: Tolerance of its format, if that is larger than `TOLERANCE`.

    Raises:
        UserError: Its outputs for the probe differ from those in the recipe.
    """
    own = recipe["formats"][name].get("probe")
    tolerance = max(tolerance, TOLERANCE if own is None else LOSSY_TOLERANCE)
    found, saved = probe(network, recipe["input"]), recipe["probe"] if own is None else own
    least = LEAST if own is None else LOSSY_LEAST
    try:
        pairs = [(torch.tensor(one), torch.tensor(other)) for one, other in zip(found, saved, strict=True)]
        apart = [difference(one.double(), other.double()) for one, other in pairs]
        same = all(each <= tolerance * max(least, most) for each, most in apart)
    except (TypeError, ValueError, RuntimeError):  # other numbers of outputs or values
        same = False
    if not same:
        raise UserError(
            f"{path} does not compute what was saved: expected the network's code, and versions, as they were then; "
            "save the artifact again"
        )


def difference(given: Tensor, wanted: Tensor) -> tuple[float, float]:
    """Return the largest difference of an output to the wanted one, and the largest finite value of that.

    Infinite values differ from all others, and NaN counts as 0; without values, there is no difference.

    Args:
        given: The output, of any type.
        wanted: The wanted one, of the same shape.
    """
    if given.shape != wanted.shape:
        return math.inf, 0.0
    if not wanted.numel():
        return 0.0, 0.0
    first, second = (torch.nan_to_num(each.double()) for each in (given, wanted))
    finite = second.abs() <= torch.finfo(torch.float32).max
    return float((first - second).abs().max()), float(torch.where(finite, second, 0).abs().max())


def _ramp(zeros: Tensor) -> Tensor:
    """Values from -1 to 1 for floating-point inputs; others stay 0, which every embedding has."""
    if not zeros.is_floating_point():
        return zeros
    return torch.linspace(-1, 1, zeros.numel(), dtype=zeros.dtype).view(zeros.shape)


def folder_of(path: str | Path) -> Path | None:
    """Return the folder of the pruned network whose weights a file has; None: it is no such file."""
    folder = Path(path).parent
    return folder if Path(path).suffix == ".safetensors" and (folder / RECIPE).is_file() else None
