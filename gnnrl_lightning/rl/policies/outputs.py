"""Checks of what a policy returns: of its outputs before a search, and that they stay finite in its course."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.module_state import state_tensors
from gnnrl_lightning.networks import not_finite
from gnnrl_lightning.rl.policies.policy_file import described

Outputs = Mapping[str, tuple[Tensor, tuple[int, ...]]]
"""Name of an output -> what the policy returns, and the shape that is expected."""


def as_output(found: Any, what: str, *shapes: tuple[int, ...], meaning: str = "") -> Tensor:
    """Return an output of a policy or of a part of it.

    Args:
        found: What is returned.
        what: Who returns it, for the message ("the actor").
        *shapes: The shapes that it may have.
        meaning: What its numbers are, for the message.

    Raises:
        TypeError: It is no tensor.
        ValueError: It has another shape.
    """
    expected = f"{' or '.join(map(str, shapes))}{': ' if meaning else ''}{meaning}"
    if not isinstance(found, Tensor):
        raise TypeError(f"{what} returns a {type(found).__name__}: expected a tensor of shape {expected}")
    if tuple(found.shape) not in shapes:
        raise ValueError(f"{what} returns {tuple(found.shape)}: expected {expected}")
    return found


def check_policy(policy: nn.Module, outputs: Outputs, trained: Mapping[str, str]) -> None:
    """Refuse a policy that a search cannot use.

    Args:
        policy: The policy.
        outputs: What it returns for some states, with gradients.
        trained: Name of each output from which gradients reach the policy -> attribute of the part that returns it.

    Raises:
        TypeError: Its description is no mapping of strings, or an output is no tensor.
        ValueError: An output has another shape, is not finite, or no gradients although there are parameters to train.
    """
    described(policy)
    for name, (found, shape) in outputs.items():
        if not as_output(found, name, shape).isfinite().all():
            raise ValueError(f"{name} is not finite")
    for name, part in trained.items():
        module: nn.Module = getattr(policy, part, policy)
        parameters = any(parameter.requires_grad for parameter in module.parameters())
        if parameters and not outputs[name][0].requires_grad:
            raise ValueError(
                f"{name} has no gradient, so that its parameters cannot be trained: expected tensors that are computed "
                "from them without detach, no_grad and numbers"
            )
    if trained and not any(outputs[name][0].requires_grad for name in trained):
        raise ValueError("nothing of it can be trained: expected at least one parameter that requires gradients")


def check_finite(policy: nn.Module, **outputs: Tensor) -> None:
    """Refuse outputs that are not finite, and say whether the policy's weights are the reason.

    Args:
        policy: The policy.
        **outputs: Name -> output, losses last.

    Raises:
        UserError: An output is NaN or infinite.
    """
    wrong = next((name for name, found in outputs.items() if not found.isfinite().all()), None)
    if wrong is None:
        return
    if (broken := not_finite(state_tensors(policy))) is not None:
        raise UserError(f"the policy has diverged, with {broken}: lower the learning rate of model")
    name = wrong.replace("_", " ")
    raise UserError(
        f"model.make_policy: the policy's {name} is not finite, although its weights are: change what computes it, or "
        "lower the learning rate of model"
    )


def check_gradients(policy: nn.Module) -> None:
    """Refuse gradients that are not finite, which would leave weights that are not.

    Args:
        policy: The policy, after a backward pass.

    Raises:
        UserError: A gradient is NaN or infinite.
    """
    gradients = {name: own.grad for name, own in policy.named_parameters() if own.grad is not None}
    if (broken := not_finite(gradients)) is not None:
        raise UserError(
            f"model.make_policy: the gradients of a finite loss have {broken}: change what computes it (a root, a "
            "logarithm or a quotient at 0), or lower the learning rate of model"
        )
