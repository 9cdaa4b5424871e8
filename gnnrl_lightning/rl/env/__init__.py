"""Environments whose observations are graphs: the protocol, pruning, rewards and scores."""

from gnnrl_lightning.rl.env.pool import EnvPool
from gnnrl_lightning.rl.env.protocol import VectorGraphEnv
from gnnrl_lightning.rl.env.pruning import PruningEnv, VectorPruningEnv
from gnnrl_lightning.rl.env.reward import NegativeCrossEntropy, NegativeDivergence, NegativeTop1Error
from gnnrl_lightning.rl.env.score import Evaluated, Score

__all__ = [
    "EnvPool",
    "Evaluated",
    "NegativeCrossEntropy",
    "NegativeDivergence",
    "NegativeTop1Error",
    "PruningEnv",
    "Score",
    "VectorGraphEnv",
    "VectorPruningEnv",
]
