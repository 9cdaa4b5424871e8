"""LightningModules that train a policy on a graph environment: GNNRL with PPO, and DDPG."""

from gnnrl_lightning.module.base import GraphLearner
from gnnrl_lightning.module.ddpg import DDPG
from gnnrl_lightning.module.ppo import GNNRL

__all__ = ["DDPG", "GNNRL", "GraphLearner"]
