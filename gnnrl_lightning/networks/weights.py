"""Read weights from files without running code stored in them."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from gnnrl_lightning.checks import as_path, instance
from gnnrl_lightning.errors import UserError, first_line, one_line
from gnnrl_lightning.files import replacing
from gnnrl_lightning.module_state import load_state_tensors, state_tensors
from gnnrl_lightning.networks.checks import check_finite_tensors
from gnnrl_lightning.tensor_files import save_tensors

TORCH_SUFFIXES = (".pt", ".pth", ".th", ".ckpt", ".tar", ".bin")
CONTAINERS = ("state_dict", "model_state_dict", "model", "net")  # keys of the state dict in checkpoints of scripts
WRAPPERS = (
    "module.",
    "network.",
    "_orig_mod.",
)  # DataParallel and DDP, our own LightningModule, torch.compile
STARTS = b"PK", b"\x80"  # of a torch.save file: a ZIP archive, or a pickle of old releases
SHOWN = 20  # first characters of another file in a message: a web page, or a pointer of Git LFS
NAMED = 3  # maximum number of offending keys in a message


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load a state dict into a network, strictly; on failure the network is unchanged.

    A checkpoint may store the state dict under "state_dict", "model_state_dict", "model" or "net". Its keys may have
    the prefixes that wrappers add (`module.`, `network.`, `_orig_mod.`), or the name under which a LightningModule of
    the user's own holds the network, if it holds one such network only. Only the batch counters of batch norms may be
    missing, as in files from old PyTorch releases. Tensors alone are loaded: other values that modules add to their
    state (`get_extra_state`) stay as they are.

    Args:
        network: The network. Its parameters and buffers are overwritten; their types and device do not change.
        path: `.safetensors`, or `.pt`, `.pth`, `.th`, `.ckpt`, `.tar`, `.bin` as written by `torch.save`.

    Raises:
        UserError: The file is missing, damaged or needs pickle; it belongs to another network or has another number
            of classes; or a weight is NaN or infinite.
    """
    instance("network", network, nn.Module, "a torch.nn.Module")
    path = as_path("path", path)
    expected = state_tensors(network)
    found = _unwrap(_read(path), expected, path)
    for key in expected.keys() - found.keys():
        if key.endswith(".num_batches_tracked"):
            found[key] = expected[key]
    _check_match(expected, found, path)
    check_finite_tensors(found, str(path))
    load_state_tensors(network, found)


def _read(path: Path) -> Mapping[str, Any]:
    """Return the contents of the file."""
    if not path.is_file():
        raise UserError(f"there is no file with weights at {path}: give a .safetensors file or one of torch.save")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise UserError(
                f"{path} is not a readable safetensors file: {one_line(error)}; save the weights again"
            ) from error
    if path.suffix not in TORCH_SUFFIXES:
        raise UserError(f"{path}: expected a file ending in .safetensors, {', '.join(TORCH_SUFFIXES)}")
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        with path.open("rb") as file:
            start = file.read(SHOWN)
        if not start.startswith(STARTS):
            text = start.decode("ascii", "replace")
            raise UserError(
                f"{path} is not a readable torch.save file: it begins with {text!r}; get it again"
            ) from error
        raise UserError(
            f"{path} contains objects other than tensors and would need pickle, which can run any code: "
            "save the network's state_dict() instead"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        reason = first_line(error).partition(". ")[0]
        raise UserError(f"{path} is not a readable torch.save file: {reason}; save the weights again") from error
    if not isinstance(contents, Mapping):
        raise UserError(f"{path} contains a {type(contents).__name__}: expected a state dict")
    return contents


def _unwrap(contents: Mapping[str, Any], expected: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the state dict inside a checkpoint, without the prefixes of wrappers."""
    for container in CONTAINERS:
        if isinstance(contents.get(container), Mapping):
            contents = contents[container]
            break
    tensors = {key: value for key, value in contents.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path} contains no state dict: expected tensors by parameter name")
    stripped = True
    while stripped and not tensors.keys() & expected.keys():
        stripped = False
        for wrapper in WRAPPERS:
            inner = {key.removeprefix(wrapper): value for key, value in tensors.items() if key.startswith(wrapper)}
            if inner:
                tensors, stripped = inner, True
                break
    return tensors if tensors.keys() & expected.keys() else _held(tensors, expected)


def _held(tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what a module of the user's own holds under one name, if that is the network, else all tensors."""
    first = next(iter(expected), "")
    prefixes = {key.removesuffix(first) for key in tensors if key.endswith(f".{first}")}
    parts = [{key[len(each) :]: tensors[key] for key in tensors if key.startswith(each)} for each in prefixes]
    complete = [part for part in parts if part.keys() == expected.keys()]
    return complete[0] if len(complete) == 1 else tensors


def _check_match(expected: dict[str, Tensor], found: dict[str, Tensor], path: Path) -> None:
    """Reject different keys and shapes; a different number of classes has its own message."""
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    if missing or unexpected:
        parts = [f"{what} {_named(keys)}" for what, keys in (("lacks", missing), ("has", unexpected)) if keys]
        raise UserError(f"{path} is for another network: it {' and '.join(parts)}; set `network` as it was trained")
    differing = [key for key in expected if expected[key].shape != found[key].shape]
    if not differing:
        return
    classes = _classes(expected, found, differing)
    if classes:
        raise UserError(
            f"{path} has {classes[1]} classes, the network has {classes[0]}: set `num_classes` of the network"
        )
    shapes = [f"{key} {tuple(found[key].shape)} instead of {tuple(expected[key].shape)}" for key in differing]
    raise UserError(f"{path} is for another network: it has {_named(shapes)}; set `network` as it was trained")


def _classes(expected: dict[str, Tensor], found: dict[str, Tensor], differing: list[str]) -> tuple[int, int] | None:
    """Return both numbers of classes if only the outputs of the last layer differ, else None."""
    last = list(expected)[-1].rpartition(".")[0]
    pairs = {(expected[key].shape[0], found[key].shape[0]) for key in differing if found[key].ndim}
    inner = all(key.rpartition(".")[0] == last and expected[key].shape[1:] == found[key].shape[1:] for key in differing)
    return pairs.pop() if inner and len(pairs) == 1 else None


def _named(items: list[str]) -> str:
    """Return the first few items and the number of further ones."""
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return ", ".join(items[:NAMED]) + more


def save_weights(network: nn.Module, path: Path, notes: Mapping[str, Any] | None = None) -> None:
    """Write a network's weights without pickle; `load_weights` reads them.

    Args:
        network: The network.
        path: The file, `.safetensors`.
        notes: Values of plain JSON types by name, kept in the file's header; `read_notes` reads them.
    """
    instance("network", network, nn.Module, "a torch.nn.Module")
    path = as_path("path", path)
    header = {name: json.dumps(value) for name, value in (notes or {}).items()}
    with replacing(path) as partial:
        save_tensors(state_tensors(network), partial, header)


def read_notes(path: Path) -> dict[str, Any]:
    """Return the notes that `save_weights` has kept in a file."""
    with safe_open(path, "pt") as file:
        return {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
