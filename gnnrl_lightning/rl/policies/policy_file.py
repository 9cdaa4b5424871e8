"""Files of trained policies (safetensors, no pickle), to initialise another search or to apply to a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.files import replacing
from gnnrl_lightning.module_state import load_state_tensors, state_tensors
from gnnrl_lightning.tensor_files import save_tensors


def save_policy(policy: nn.Module, path: str | Path, setting: Mapping[str, str] | None = None) -> None:
    """Write a policy's weights, its description and the setting in which it was trained.

    Args:
        policy: The policy; its attribute `description`, if it exists, is written too.
        path: The file, `.safetensors`.
        setting: Options that define its states and actions, as strings by name; None: no setting is stored.
    """
    beside = json.dumps(described(policy) | dict(setting or {}))
    with replacing(Path(path)) as partial:
        # one entry beside the tensors, because the order of several is random
        save_tensors(state_tensors(policy), partial, {"beside": beside})


def load_policy(policy: nn.Module, path: str | Path, setting: Mapping[str, str] | None = None) -> None:
    """Load weights into a policy, in place.

    Args:
        policy: A policy of the same architecture; it may be for another network if its weights do not depend on it.
        path: The file.
        setting: The current setting; options that are both here and in the file must have the same value.

    Raises:
        UserError: The file is missing or damaged, or its policy has another architecture or setting.
    """
    tensors, before = _read(Path(path))
    for name, value in (described(policy) | dict(setting or {})).items():
        if before.get(name, value) != value:
            raise UserError(
                f"model.policy_file: {path} was trained with {name} {before[name]}, here it is {value}; "
                "expected the same"
            )
    own = state_tensors(policy)
    wrong = sorted(own.keys() ^ tensors.keys())
    if wrong:
        raise UserError(
            f"model.policy_file: {path} has another architecture: {len(wrong)} weights differ, such as {wrong[0]}; "
            "set model.make_policy and search.sensitivity as they were when it was trained"
        )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise UserError(
                f"model.policy_file: {path} has {name} of shape {tuple(tensor.shape)}, this network needs "
                f"{tuple(own[name].shape)}: only policies with the head 'node' support every network"
            )
    load_state_tensors(policy, tensors)


def described(policy: nn.Module) -> dict[str, str]:
    """A policy's attribute `description`, strings by name; empty if it does not exist.

    Raises:
        TypeError: It is not a mapping of strings.
    """
    found = getattr(policy, "description", {})
    if not isinstance(found, Mapping) or not all(isinstance(part, str) for item in found.items() for part in item):
        raise TypeError(f"description is {found!r}: expected strings by name")
    return dict(found)


def _read(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """The tensors and the metadata of a policy file."""
    if not path.exists():
        raise UserError(f"model.policy_file: there is no file {path}: give policy.safetensors of a run")
    if path.is_dir():
        raise UserError(f"model.policy_file: {path} is a folder: expected a file")
    try:
        with safe_open(path, "pt") as file:
            beside = json.loads((file.metadata() or {}).get("beside", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise UserError(
            f"model.policy_file: {path} is not a policy file: {one_line(error)}; give policy.safetensors of a run"
        ) from error
    if not isinstance(beside, dict):
        raise UserError(
            f"model.policy_file: {path} is not a policy file: its metadata is {beside!r}; "
            "give policy.safetensors of a run"
        )
    return tensors, beside
