"""A trained policy in a file of its own: tensors without pickle, to start from or to apply to a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.files import replacing


def save_policy(policy: nn.Module, path: str | Path, setting: Mapping[str, str] | None = None) -> None:
    """Write the weights of a policy, and what they do not tell: how it is made, and in what setting it has learnt.

    Args:
        policy: The policy. What its attribute `description` has, where there is one, is written, too.
        path: The file, `.safetensors`.
        setting: What its states and actions mean, plain strings by name; None: nothing is said of it.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in policy.state_dict().items()}
    beside = json.dumps(described(policy) | dict(setting or {}))
    with replacing(Path(path)) as partial:
        save_file(tensors, partial, {"beside": beside})  # one entry: several are written in a random order


def load_policy(policy: nn.Module, path: str | Path, setting: Mapping[str, str] | None = None) -> None:
    """Read weights into a policy, in place.

    Args:
        policy: A policy of the same make, also for another network where its parts do not depend on one.
        path: The file.
        setting: What its states and actions mean here; what is named here and in the file has to be the same.

    Raises:
        UserError: The file is missing or damaged, or the policy in it is another one, or from another setting.
    """
    tensors, before = _read(Path(path))
    own = policy.state_dict()
    wrong = sorted(own.keys() ^ tensors.keys())
    if wrong:
        raise UserError(
            f"model.policy_file: {path} is a policy of another make, it differs in {wrong[0]} (of {len(wrong)}): "
            "set model.make_policy, and search.sensitivity, as they were when it was trained"
        )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise UserError(
                f"model.policy_file: {path} has {name} of shape {tuple(tensor.shape)}, this network needs "
                f"{tuple(own[name].shape)}: only policies of the head node fit every network"
            )
    for name, value in (described(policy) | dict(setting or {})).items():
        if before.get(name, value) != value:
            raise UserError(f"model.policy_file: {path} was trained with {name} {before[name]}, here it is {value}")
    policy.load_state_dict(tensors)


def described(policy: nn.Module) -> dict[str, str]:
    """What a policy says of itself in its attribute `description`, where it has one: names to plain strings.

    Raises:
        TypeError: It says something else.
    """
    found = getattr(policy, "description", {})
    if not isinstance(found, Mapping) or not all(isinstance(part, str) for item in found.items() for part in item):
        raise TypeError(f"description is {found!r}: expected strings by name")
    return dict(found)


def _read(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Tensors, and what is said of them."""
    if not path.exists():
        raise UserError(f"model.policy_file: there is no file {path}")
    if path.is_dir():
        raise UserError(f"model.policy_file: {path} is a folder, a policy is a file")
    try:
        with safe_open(path, "pt") as file:
            beside = json.loads((file.metadata() or {}).get("beside", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise UserError(f"model.policy_file: {path} is no policy: {error}") from error
    if not isinstance(beside, dict):
        raise UserError(f"model.policy_file: {path} is no policy: what is said of it is {beside!r}")
    return tensors, beside
