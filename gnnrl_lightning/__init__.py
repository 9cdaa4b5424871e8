"""Topology-aware network compression with graph neural networks and reinforcement learning."""

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.graph import ComputationGraph, trace
from gnnrl_lightning.speed.memory import keep_kernels

keep_kernels()  # before the first convolution

__version__ = "0.1.0"
__all__ = ["ComputationGraph", "UserError", "__version__", "trace"]
