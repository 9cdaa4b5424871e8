"""PPO updates, state graphs, and episodes in the proxy."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
import torchvision
from lightning.pytorch import Callback, LightningModule, Trainer

import gnnrl_lightning
from gnnrl_lightning import networks
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.rl.env import VectorPruningEnv
from gnnrl_lightning.rl.learners import GNNRL
from gnnrl_lightning.rl.policies import Agent
from gnnrl_lightning.rl.rollout import collect
from gnnrl_lightning.speed.rounds import synchronize
from gnnrl_lightning.surrogate.proxy import Proxy
from gnnrl_lightning.surrogate.sensitivity import RATIOS, Sensitivity
from gnnrl_lightning.training.train import quiet_trainer
from speed_parts.machine import median_seconds

TRANSITIONS = 100
EPOCHS = 10
NETWORKS = {
    "resnet20": (networks.resnet20, 32),
    "resnet56": (networks.resnet56, 32),
    "resnet50": (torchvision.models.resnet50, 224),
}


class _Update(Callback):
    """Measures the seconds from the first minibatch of an iteration to its end."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start with the first minibatch."""
        if batch_idx == 0:
            self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop."""
        synchronize(pl_module.device)
        self.seconds.append(time.perf_counter() - self._start)


def environment(name: str) -> VectorPruningEnv:
    """One-step episodes in a proxy with an artificial sensitivity."""
    make, side = NETWORKS[name]
    graph = gnnrl_lightning.trace(make().eval(), torch.zeros(1, 3, side, side), self_test=False)
    groups = len(graph.groups)
    measured = torch.rand(groups, len(RATIOS), generator=torch.Generator().manual_seed(0)).sort(1, descending=True)[0]
    table = Sensitivity.interpolate(graph.widths, RATIOS, measured)
    proxy = Proxy(table.of_groups, lambda: (torch.zeros(0, groups, dtype=torch.int64), torch.zeros(0)))
    return VectorPruningEnv(graph, Budget(macs=0.5).on(graph), proxy, max_steps=1, statistics=table.statistics)


def measure(name: str, episodes: int, repeats: int, device: str) -> dict[str, Any]:
    """Figures of one network, with the policy on the device, and environments and states on the CPU."""
    env = environment(name)
    module = GNNRL(env, episodes_per_iteration=TRANSITIONS, epochs=EPOCHS, target_kl=None)
    update = _Update()
    flags = {"accelerator": device, "devices": 1, "log_every_n_steps": 1}
    trainer = quiet_trainer(max_epochs=repeats + 1, callbacks=[update], **flags)
    trainer.fit(module)
    observation, _ = env.reset(1)
    policy = Agent(env.state_dim, env.action_dim)
    policy.centre_on(env.initial_action, 0.2)
    policy.to(device)
    seconds = median_seconds(lambda: collect(env, policy, episodes, 0, 1.0, 0.95, device), repeats)
    return {
        "network": name,
        "groups": env.action_dim,
        "nodes": env.builder.num_nodes,
        "ppo_update_s": round(statistics.median(update.seconds[1:]), 3),
        "state_ms": round(1000 * median_seconds(lambda: env.graphs(observation), 20 * repeats), 3),
        "proxy_episodes_per_s": round(episodes / seconds),
    }
