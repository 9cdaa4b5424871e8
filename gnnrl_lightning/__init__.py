"""Topology-aware network compression with graph neural networks and reinforcement learning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gnnrl_lightning.errors import UserError

if TYPE_CHECKING:
    from gnnrl_lightning.graph import ComputationGraph, trace

__version__ = "0.1.0"
__all__ = ["ComputationGraph", "UserError", "__version__", "trace"]

# Imported when they are first asked for, because PyTorch takes seconds.
_HOMES = {"ComputationGraph": "gnnrl_lightning.graph", "trace": "gnnrl_lightning.graph"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
