"""A trained policy in a file of its own: tensors without pickle, to start from or to apply to a network."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.runs import replacing


def save_policy(actor_critic: nn.Module, path: str | Path) -> None:
    """Write the weights of a policy.

    Args:
        actor_critic: The policy.
        path: The file, `.safetensors`.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in actor_critic.state_dict().items()}
    with replacing(Path(path)) as partial:
        save_file(tensors, partial)


def load_policy(actor_critic: nn.Module, path: str | Path) -> None:
    """Read weights into a policy, in place.

    Args:
        actor_critic: A policy of the same make, also for another network where its parts do not depend on one.
        path: The file.

    Raises:
        UserError: The file is missing or damaged, or the policy in it is another one.
    """
    try:
        tensors = load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"model.policy: there is no file {path}") from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"model.policy: {path} is no policy: {error}") from error
    own = actor_critic.state_dict()
    wrong = sorted(own.keys() ^ tensors.keys())
    if wrong:
        raise UserError(
            f"model.policy: {path} is a policy of another make, it differs in {wrong[0]} (of {len(wrong)}): "
            "set model.actor_critic, and search.table, as they were when it was trained"
        )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise UserError(
                f"model.policy: {path} has {name} of shape {tuple(tensor.shape)}, this network needs "
                f"{tuple(own[name].shape)}: only policies of the head node fit every network"
            )
    actor_critic.load_state_dict(tensors)
