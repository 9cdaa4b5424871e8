"""GNNRL: the LightningModule that trains an actor-critic on a graph environment with PPO."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gnnrl_lightning.agents import ppo
from gnnrl_lightning.agents.actor_critic import Agent
from gnnrl_lightning.env.protocol import VectorGraphEnv
from gnnrl_lightning.module.base import GraphLearner, at_least_one, positive
from gnnrl_lightning.rollout import RolloutLoader, Transitions, collect


class GNNRL(GraphLearner):
    """Trains an actor-critic on an environment whose observations are graphs, with PPO.

    An epoch of the trainer is an iteration: episodes are played to their ends with the present policy, then
    their transitions pass `epochs` times through `minibatches` optimiser steps of

        L = policy loss + value_coeff * value loss - entropy_coeff * entropy.

    With a proxy, an environment whose rewards are estimates that cost microseconds, the search has two fidelities: the
    first `proxy_warmup` iterations play `proxy_episodes` each in the proxy, then every iteration in the real
    environment is followed by `proxy_between` in the proxy, which has learnt from what the real one said.

    The same seed, on the CPU, gives the same search, also when it goes on from a checkpoint.

    Args:
        env: The environment; it may also be set later (`module.env = env`), before the trainer starts.
        actor_critic: Makes the policy for (features of a node, decisions in a graph): a module with
            `act(state)` and `evaluate(state, action)`, see `gnnrl_lightning.agents.ActorCritic`.
        learning_rate: Of Adam.
        clip_epsilon: Half-width of PPO's trusted interval around a probability ratio of 1.
        entropy_coeff: Weight of the entropy bonus.
        value_coeff: Weight of the critic's loss.
        gamma: Discount; 1 where the reward comes at the end of an episode.
        gae_lambda: Advantage estimation: trade of bias (0) for variance (1).
        epochs: Passes over the transitions of an iteration.
        minibatches: Optimiser steps in a pass.
        episodes_per_iteration: Episodes of an iteration, in each process.
        max_grad_norm: Largest norm of the gradient; the trainer's `gradient_clip_val`, where given, takes its
            place.
        target_kl: An iteration stops early when the policy has moved further than 1.5 times this from where
            it began, in nats; None: never.
        initial_spread: Standard deviation of the first policy's actions around the environment's initial
            action.
        proxy: An environment of the same states with estimated rewards, or None; it may be set later too.
        proxy_warmup: Iterations in the proxy before the first one in the environment.
        proxy_between: Iterations in the proxy after each one in the environment.
        proxy_episodes: Episodes of an iteration in the proxy, in each process.
        policy: File of a trained policy to start from (`gnnrl_lightning.agents.save_policy`); None: a fresh one.
        seed: Of the policy's weights and of all sampling.

    Raises:
        UserError: A number is out of range.
    """

    latest_kl: Tensor

    def __init__(
        self,
        env: VectorGraphEnv | None = None,
        actor_critic: Callable[[int, int], nn.Module] = Agent,
        learning_rate: float = 3e-3,
        clip_epsilon: float = 0.2,
        entropy_coeff: float = 0.0,
        value_coeff: float = 0.5,
        gamma: float = 1.0,
        gae_lambda: float = 0.95,
        epochs: int = 4,
        minibatches: int = 4,
        episodes_per_iteration: int = 8,
        max_grad_norm: float = 5.0,
        target_kl: float | None = 0.1,
        initial_spread: float = 0.2,
        proxy: VectorGraphEnv | None = None,
        proxy_warmup: int = 100,
        proxy_between: int = 4,
        proxy_episodes: int = 64,
        policy: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            env,
            actor_critic,
            episodes_per_iteration,
            max_grad_norm,
            initial_spread,
            proxy,
            proxy_warmup,
            proxy_between,
            proxy_episodes,
            policy,
            seed,
        )
        at_least_one(epochs=epochs, minibatches=minibatches)
        positive(learning_rate=learning_rate, clip_epsilon=clip_epsilon)
        self.learning_rate = learning_rate
        self.clip_epsilon, self.entropy_coeff, self.value_coeff = clip_epsilon, entropy_coeff, value_coeff
        self.gamma, self.gae_lambda = gamma, gae_lambda
        self.epochs, self.minibatches, self.target_kl = epochs, minibatches, target_kl
        # A buffer, so that a checkpoint holds it.
        self.register_buffer("latest_kl", torch.zeros(()))
        self._loader: RolloutLoader | None = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over actor and critic."""
        return torch.optim.Adam(self.actor_critic.parameters(), lr=self.learning_rate, eps=1e-5)

    def train_dataloader(self) -> RolloutLoader:
        """The loader that plays an iteration's episodes when its first minibatch is asked for."""
        self._loader = RolloutLoader(
            self._collect,
            lambda: self.trainer.current_epoch,
            self.epochs,
            self.minibatches,
            seed=self.seed,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            reduce=self.sum_over_processes,
        )
        return self._loader

    def _collect(self, iteration: int) -> Transitions:
        def play(env: VectorGraphEnv, episodes: int, seed: int) -> tuple[Transitions, Tensor]:
            return collect(
                env,
                self.actor_critic,
                episodes,
                seed,
                self.gamma,
                self.gae_lambda,
                self.device,
                self.sum_over_processes,
            )

        transitions = self.measured(play, iteration)
        explained = ppo.explained_variance(transitions.values, transitions.returns)
        self._rollout["losses/explained_variance"] = float(explained)
        return transitions

    def on_train_epoch_start(self) -> None:
        """The policy has not moved yet in this iteration."""
        self.latest_kl.zero_()

    def on_train_batch_start(self, batch: Transitions, batch_idx: int) -> int | None:
        """End the iteration early once the policy has moved too far; all processes agree on it."""
        if self.target_kl is not None and float(self.latest_kl) > 1.5 * self.target_kl:
            if self._loader is not None:
                self._loader.drop()
            return -1
        return None

    def training_step(self, batch: Transitions, batch_idx: int) -> Tensor:
        """PPO's loss of a minibatch."""
        state = self.environment.graphs(batch.observations).to(self.device)
        log_prob, value, entropy = self.actor_critic.evaluate(state, batch.actions)
        policy, approx_kl, clip_fraction = ppo.policy_loss(
            log_prob, batch.log_probs, batch.advantages, self.clip_epsilon
        )
        critic, entropy = ppo.value_loss(value, batch.returns), entropy.mean()
        shared = self.sum_over_processes(torch.stack([approx_kl * batch.weight, batch.weight]).detach())
        self.latest_kl.copy_(shared[0] / shared[1].clamp(min=1e-12))
        losses = {
            "losses/policy": policy,
            "losses/value": critic,
            "losses/entropy": entropy,
            "losses/approx_kl": approx_kl,
            "losses/clipfrac": clip_fraction,
        }
        self.log_dict(
            {name: loss.detach() for name, loss in losses.items()},
            on_step=False, on_epoch=True, batch_size=len(batch), sync_dist=self.trainer.world_size > 1,
        )  # fmt: skip
        return batch.weight * (policy + self.value_coeff * critic - self.entropy_coeff * entropy)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the norm of the gradient before it is clipped."""
        gradients = [p.grad.norm() for p in self.actor_critic.parameters() if p.grad is not None]
        self.log(
            "losses/grad_norm", torch.stack(gradients).norm(),
            on_step=False, on_epoch=True, batch_size=1, sync_dist=self.trainer.world_size > 1,
        )  # fmt: skip

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient's norm, as the trainer says or else to max_grad_norm."""
        if gradient_clip_val is not None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            self.clip_gradients(optimizer, self.max_grad_norm, "norm")
