"""Environments whose observations are graphs: the protocol, pruning, rewards and scores."""

from gnnrl_lightning.env.protocol import VectorGraphEnv
from gnnrl_lightning.env.pruning import PruningEnv, VectorPruningEnv
from gnnrl_lightning.env.reward import NegativeCrossEntropy, NegativeDivergence, NegativeTop1Error
from gnnrl_lightning.env.score import Evaluated, Proxy, Score

__all__ = [
    "Evaluated",
    "NegativeCrossEntropy",
    "NegativeDivergence",
    "NegativeTop1Error",
    "Proxy",
    "PruningEnv",
    "Score",
    "VectorGraphEnv",
    "VectorPruningEnv",
]
