"""LightningModules that train a policy on a graph environment: GNNRL with PPO."""

from gnnrl_lightning.module.base import GraphLearner
from gnnrl_lightning.module.ppo import GNNRL

__all__ = ["GNNRL", "GraphLearner"]
