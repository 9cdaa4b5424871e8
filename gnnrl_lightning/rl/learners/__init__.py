"""LightningModules that train a policy on a graph environment: GNNRL (PPO) and DDPG."""

from gnnrl_lightning.rl.learners.base import GraphLearner
from gnnrl_lightning.rl.learners.ddpg import DDPG
from gnnrl_lightning.rl.learners.gnnrl import GNNRL

__all__ = ["DDPG", "GNNRL", "GraphLearner"]
