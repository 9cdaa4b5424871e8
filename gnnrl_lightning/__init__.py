"""Topology-aware network compression with graph neural networks and reinforcement learning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.quiet import without_others_warnings

if TYPE_CHECKING:
    from gnnrl_lightning.artifacts.artifact import load
    from gnnrl_lightning.cost.budget import Budget
    from gnnrl_lightning.graph import ComputationGraph
    from gnnrl_lightning.job.compress import compress
    from gnnrl_lightning.job.compress_by_score import compress_by_score
    from gnnrl_lightning.job.delivery import Delivered
    from gnnrl_lightning.job.group_options import GroupOptions
    from gnnrl_lightning.job.options import Options
    from gnnrl_lightning.job.task import Task
    from gnnrl_lightning.networks.spec import NetworkSpec
    from gnnrl_lightning.rl.learners import GNNRL
    from gnnrl_lightning.runs.hub import pull, push
    from gnnrl_lightning.speed.memory import keep_kernels
    from gnnrl_lightning.surgery.plan import Plan
    from gnnrl_lightning.tracer import trace
    from gnnrl_lightning.training.options import TrainingOptions

__version__ = "0.1.0"
__all__ = [
    "GNNRL",
    "Budget",
    "ComputationGraph",
    "Delivered",
    "GroupOptions",
    "NetworkSpec",
    "Options",
    "Plan",
    "Task",
    "TrainingOptions",
    "UserError",
    "__version__",
    "compress",
    "compress_by_score",
    "keep_kernels",
    "load",
    "pull",
    "push",
    "trace",
]

# Imported when they are first asked for, because PyTorch takes seconds.
_HOMES = {
    "Budget": "gnnrl_lightning.cost.budget",
    "ComputationGraph": "gnnrl_lightning.graph",
    "Delivered": "gnnrl_lightning.job.delivery",
    "GNNRL": "gnnrl_lightning.rl.learners",
    "GroupOptions": "gnnrl_lightning.job.group_options",
    "NetworkSpec": "gnnrl_lightning.networks.spec",
    "Options": "gnnrl_lightning.job.options",
    "Plan": "gnnrl_lightning.surgery.plan",
    "Task": "gnnrl_lightning.job.task",
    "TrainingOptions": "gnnrl_lightning.training.options",
    "compress": "gnnrl_lightning.job.compress",
    "compress_by_score": "gnnrl_lightning.job.compress_by_score",
    "keep_kernels": "gnnrl_lightning.speed.memory",
    "load": "gnnrl_lightning.artifacts.artifact",
    "pull": "gnnrl_lightning.runs.hub",
    "push": "gnnrl_lightning.runs.hub",
    "trace": "gnnrl_lightning.tracer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with without_others_warnings():
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
