"""Policies: distributions over actions, actor-critics, deterministic policies, and policy files."""

from gnnrl_lightning.rl.policies.ablations import AblatedAgent
from gnnrl_lightning.rl.policies.actor_critic import ActorCritic, Agent
from gnnrl_lightning.rl.policies.deterministic import DDPGActor, DDPGAgent, QCritic
from gnnrl_lightning.rl.policies.distributions import Beta, ClippedGaussian, SquashedGaussian, UnitDistribution
from gnnrl_lightning.rl.policies.heads import Critic, GraphActor, NodeActor
from gnnrl_lightning.rl.policies.log_keep import LogKeep
from gnnrl_lightning.rl.policies.policy_file import load_policy, save_policy
from gnnrl_lightning.rl.policies.readout import decision_mean, decisions_of, graph_mean, sum_over_decisions

__all__ = [
    "AblatedAgent",
    "ActorCritic",
    "Agent",
    "Beta",
    "ClippedGaussian",
    "Critic",
    "DDPGActor",
    "DDPGAgent",
    "GraphActor",
    "LogKeep",
    "NodeActor",
    "QCritic",
    "SquashedGaussian",
    "UnitDistribution",
    "decision_mean",
    "decisions_of",
    "graph_mean",
    "load_policy",
    "save_policy",
    "sum_over_decisions",
]
