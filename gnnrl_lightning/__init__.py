"""Topology-aware network compression with graph neural networks and reinforcement learning."""

__version__ = "0.1.0"
