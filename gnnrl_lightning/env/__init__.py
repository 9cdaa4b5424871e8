"""Environments whose observations are graphs: the protocol, pruning, and rewards."""

from gnnrl_lightning.env.protocol import VectorGraphEnv
from gnnrl_lightning.env.pruning import PruningEnv, VectorPruningEnv
from gnnrl_lightning.env.reward import NegativeCrossEntropy, NegativeTop1Error

__all__ = ["NegativeCrossEntropy", "NegativeTop1Error", "PruningEnv", "VectorGraphEnv", "VectorPruningEnv"]
