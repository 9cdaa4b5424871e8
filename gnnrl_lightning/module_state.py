"""The tensors of a module's state."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def state_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Tensors of `state_dict()` by name, without other values that modules add by `get_extra_state`.

    Args:
        module: The module; the tensors are its own, without gradients.
    """
    return {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def load_state_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load tensors of the same names as those of `state_tensors`; other values of the state stay.

    Args:
        module: The module, which is modified.
        tensors: The tensors by name.

    Raises:
        RuntimeError: Names or shapes differ, see `torch.nn.Module.load_state_dict`.
    """
    others = {name: value for name, value in module.state_dict().items() if not isinstance(value, Tensor)}
    module.load_state_dict({**others, **tensors})
