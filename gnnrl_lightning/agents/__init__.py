"""Policies and how they learn: distributions over actions, actor-critics, PPO."""

from gnnrl_lightning.agents.actor_critic import ActorCritic, Agent, Critic, GraphActor, NodeActor
from gnnrl_lightning.agents.distributions import Beta, SquashedGaussian, UnitDistribution

__all__ = [
    "ActorCritic",
    "Agent",
    "Beta",
    "Critic",
    "GraphActor",
    "NodeActor",
    "SquashedGaussian",
    "UnitDistribution",
]
