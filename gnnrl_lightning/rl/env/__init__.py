"""Environments whose observations are graphs: the protocol, pruning, rewards and scores."""

from gnnrl_lightning.rl.env.gymnasium_env import PruningEnv
from gnnrl_lightning.rl.env.pool import EnvPool
from gnnrl_lightning.rl.env.protocol import VectorGraphEnv
from gnnrl_lightning.rl.env.pruning import VectorPruningEnv
from gnnrl_lightning.rl.env.reward import REWARDS, FigureReward, find_reward
from gnnrl_lightning.rl.env.score import Evaluated, Score

__all__ = [
    "REWARDS",
    "EnvPool",
    "Evaluated",
    "FigureReward",
    "PruningEnv",
    "Score",
    "VectorGraphEnv",
    "VectorPruningEnv",
    "find_reward",
]
