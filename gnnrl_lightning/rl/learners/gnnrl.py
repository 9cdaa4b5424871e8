"""GNNRL: the LightningModule that trains an actor-critic on a graph environment with PPO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gnnrl_lightning.checks import counts, real
from gnnrl_lightning.processes import log_weight
from gnnrl_lightning.rl import ppo_losses as ppo
from gnnrl_lightning.rl.env.protocol import VectorGraphEnv
from gnnrl_lightning.rl.learners.base import GraphLearner
from gnnrl_lightning.rl.learners.own import check_batch
from gnnrl_lightning.rl.policies.actor_critic import Agent
from gnnrl_lightning.rl.policies.outputs import Outputs, check_finite, check_gradients
from gnnrl_lightning.rl.rollout import RolloutLoader, Transitions, collect, squash_of
from gnnrl_lightning.rl.state.graph import StateGraph

HALVINGS = 10
"""Maximum number of times that a step that went too far is halved."""

LIGHTEST = 1e-6
"""Weight of the row of an empty minibatch in the divergence: it counts if the minibatch is empty in all processes."""

MOMENTA = {"exp_avg", "momentum_buffer"}
"""Momentum in the states of Adam and its kind, and of SGD."""

LOG_PROBABILITY, VALUE = "evaluate's log-probability", "evaluate's value"
"""Outputs of a policy from which it is trained."""


class GNNRL(GraphLearner):
    """Trains an actor-critic on a graph environment with PPO.

    Each trainer epoch is one iteration: whole episodes are played with the current policy, then `epochs` passes are
    made over their transitions, each with `minibatches` optimiser steps on

        L = policy loss + value_coeff * value loss - entropy_coeff * entropy.

    Each iteration starts without the optimiser's momentum: it points to where the policy was going on the episodes of
    earlier iterations, and would be followed again even after a step along it was taken back. Adam's first steps are
    therefore short, 0.1, 0.19, ... of the learning rate: the correction of its mean is over by then. A schedule of the
    learning rate needs `target_kl` None, or it is undone.

    Rewards are not scaled: the critic starts near 0, so that differences far below 0.1 are lost in its first errors,
    and large values take it long to learn. Give a reward whose episodes differ by about 0.1 to 10.

    See `GraphLearner` for the use of a proxy.

    On the CPU, the same seed gives the same search, even if it is interrupted and resumed, unless the policy draws
    numbers of its own while it is trained, as dropout does.

    Args:
        env: The environment; it can also be set later (`module.env = env`), before training starts.
        make_policy: Creates the policy from (number of node features, decisions per graph): a module with
            `act(state)` and `evaluate(state, action)`, see `gnnrl_lightning.rl.policies.ActorCritic`.
        learning_rate: Adam's learning rate at the beginning, and at most; see target_kl.
        clip_epsilon: Half-width of PPO's clipping interval around a probability ratio of 1.
        entropy_coeff: Weight of the entropy bonus.
        value_coeff: Weight of the critic's loss.
        gamma: Discount factor; 1 if the reward comes only at the end of an episode.
        gae_lambda: Trade-off between bias (0) and variance (1) of the advantage estimates.
        epochs: Passes over the transitions of an iteration.
        minibatches: Optimiser steps per pass.
        target_kl: Target divergence per iteration, in nats. If a step moves the policy further than 1.5 times this
            from the start of the iteration, measured on the next minibatch, the step is halved until it does not, the
            iteration ends, and the learning rate is lowered (`gnnrl_lightning.rl.ppo_losses.next_rate`); it rises
            again when the policy moves by less than half of this. The last step of an iteration, which has no next
            minibatch, is not limited, even if it is the only one. None: no limit, and the rate is constant.
        proposal_spread: Standard deviation of the untrained policy's actions around the proposals in the states, if
            there are any; at least one channel.
        **common: Arguments of `GraphLearner`. The trainer's `gradient_clip_val`, if set, replaces max_grad_norm.

    Raises:
        UserError: A value is of another type, or out of range.
    """

    trained: ClassVar[Mapping[str, str]] = {LOG_PROBABILITY: "actor", VALUE: "critic"}

    def __init__(
        self,
        env: VectorGraphEnv | None = None,
        make_policy: Callable[[int, int | None], nn.Module] = Agent,
        *,
        learning_rate: float = 3e-3,
        clip_epsilon: float = 0.2,
        entropy_coeff: float = 0.0,
        value_coeff: float = 0.5,
        gamma: float = 1.0,
        gae_lambda: float = 0.95,
        epochs: int = 4,
        minibatches: int = 4,
        target_kl: float | None = 0.4,
        proposal_spread: float = 0.3,
        **common: Any,
    ) -> None:
        super().__init__(env, make_policy, **common)
        counts(epochs=epochs, minibatches=minibatches)
        real("learning_rate", learning_rate, 0, ends="(]")
        real("clip_epsilon", clip_epsilon, 0, ends="(]")
        real("proposal_spread", proposal_spread, 0, ends="(]")
        real("entropy_coeff", entropy_coeff, 0)
        real("value_coeff", value_coeff, 0)
        real("gamma", gamma, 0, 1)
        real("gae_lambda", gae_lambda, 0, 1)
        if target_kl is not None:
            real("target_kl", target_kl, 0, ends="(]")
        self.proposal_spread = proposal_spread
        self.learning_rate = learning_rate
        self.clip_epsilon, self.entropy_coeff, self.value_coeff = clip_epsilon, entropy_coeff, value_coeff
        self.gamma, self.gae_lambda = gamma, gae_lambda
        self.epochs, self.minibatches, self.target_kl = epochs, minibatches, target_kl
        self._loader: RolloutLoader | None = None
        self._before: list[Tensor] = []

    @property
    def spreads(self) -> tuple[float, ...]:
        """Standard deviations around the initial action and around proposals."""
        return self.initial_spread, self.proposal_spread

    def outputs(self, state: StateGraph) -> Outputs:
        """Actions, and the log-probability, value and entropy of each state."""
        each, shape = (state.num_graphs,), (len(state.decision_batch),)
        action, log_prob = self.policy.act(state)
        squash = squash_of(self.policy)
        evaluated = self.policy.evaluate(state, action)
        names = (LOG_PROBABILITY, VALUE, "evaluate's entropy")
        found = {"act's action": (squash(action), shape), "act's log-probability": (log_prob, each)}
        found |= {name: (value, each) for name, value in zip(names, evaluated, strict=True)}
        if hasattr(self.policy, "state_value"):
            found["state_value"] = self.policy.state_value(state), each
        if hasattr(self.policy, "mode"):
            found["mode"] = squash(self.policy.mode(state)), shape
        return found

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One Adam optimiser for actor and critic."""
        return torch.optim.Adam(self.policy.parameters(), lr=self.learning_rate, eps=1e-5)

    def train_dataloader(self) -> RolloutLoader:
        """The loader that plays an iteration's episodes before it yields its first minibatch."""
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
                self.policy,
                episodes,
                seed,
                self.gamma,
                self.gae_lambda,
                self.device,
                self.sum_over_processes,
            )

        self._forget()  # not in on_train_epoch_start, which is not called where a run is resumed
        transitions = self.measured(play, iteration)
        explained = ppo.explained_variance(transitions.values, transitions.returns)
        self._rollout["losses/explained_variance"] = float(explained)
        return transitions

    def _forget(self) -> None:
        """Forget the parameters and the momentum of the previous iteration."""
        self._before = []
        for optimizer in self.trainer.optimizers:
            for state in optimizer.state.values():
                for name in MOMENTA & state.keys():
                    if state[name] is not None:
                        state[name].zero_()

    def on_train_batch_start(self, batch: Transitions, batch_idx: int) -> int | None:
        """If the last step moved the policy too far, halve it until it does not, and end the iteration.

        PPO's clipping bounds the gain from a step, but not its size. All processes take the same decision. Before the
        last step of an iteration, and when it ends early, the learning rate is adapted.
        """
        if self.target_kl is None or not self._before:
            return None
        moved, most = self._moved(batch), ppo.KL_SLACK * self.target_kl
        near = moved <= most  # NaN is not
        if not near or (self._loader is not None and self._loader.done):
            self._adapt(moved, self.target_kl)
        if near:
            return None
        for _ in range(HALVINGS):
            with torch.no_grad():
                for now, before in zip(self.policy.parameters(), self._before, strict=True):
                    now.lerp_(before.to(now.device), 0.5)
            if self._moved(batch) <= most:
                break
        if self._loader is not None:
            self._loader.drop()
        # Lightning counts it as processed only; a run that resumes at the end of a later iteration would repeat that.
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        progress.increment_started()
        progress.increment_completed()
        return -1

    def _adapt(self, moved: float, target: float) -> None:
        """Adapt the learning rate, which checkpoints store with the optimiser."""
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = ppo.next_rate(group["lr"], moved, target, self.learning_rate)

    @torch.no_grad()
    def _moved(self, batch: Transitions) -> float:
        """Divergence (nats) of the policy that played the episodes from the current one, over all processes."""
        check_batch(self, batch, Transitions)
        state = self.environment.graphs(batch.observations).to(self.device)
        log_prob = self.policy.evaluate(state, batch.actions.values)[0]
        approx_kl = ppo.policy_loss(log_prob, batch.log_probs, batch.advantages)[1]
        weight = batch.weight.clamp(min=LIGHTEST)
        total, weight = self.sum_over_processes(torch.stack([approx_kl * weight, weight])).tolist()
        return total / weight

    def training_step(self, batch: Transitions, batch_idx: int) -> Tensor:
        """PPO loss of a minibatch.

        Raises:
            UserError: A loader of the user's gives something else, or the policy gives values that are not finite.
        """
        check_batch(self, batch, Transitions)
        state = self.environment.graphs(batch.observations).to(self.device)
        log_prob, value, entropy = self.policy.evaluate(state, batch.actions.values)
        policy, approx_kl, clip_fraction = ppo.policy_loss(
            log_prob, batch.log_probs, batch.advantages, self.clip_epsilon
        )
        critic, entropy = ppo.value_loss(value, batch.returns), entropy.mean()
        losses = {
            "losses/policy": policy,
            "losses/value": critic,
            "losses/entropy": entropy,
            "losses/approx_kl": approx_kl,
            "losses/clipfrac": clip_fraction,
        }
        self.log_dict(
            {name: loss.detach() for name, loss in losses.items()},
            on_step=False, on_epoch=True, batch_size=log_weight(len(batch)), sync_dist=self.trainer.world_size > 1,
        )  # fmt: skip
        loss = batch.weight * (policy + self.value_coeff * critic - self.entropy_coeff * entropy)
        check_finite(self.policy, log_probability=log_prob, value=value, entropy=entropy, loss=loss)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Remember the parameters before the step, and log the learning rate and the gradient norm before clipping."""
        self._before = [parameter.detach().clone() for parameter in self.policy.parameters()]
        norm = torch.stack([p.grad.norm() for p in self.policy.parameters() if p.grad is not None]).norm()
        if not norm.isfinite() and self.trainer.precision != "16-mixed":  # there, such steps are left out
            check_gradients(self.policy)
        self.log_dict(
            {"losses/grad_norm": norm, "charts/learning_rate": optimizer.param_groups[0]["lr"]},
            on_step=False, on_epoch=True, batch_size=1, sync_dist=self.trainer.world_size > 1,
        )  # fmt: skip

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the parameters before the last step, which may still be halved."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["policy_before"] = self._before

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the parameters before the last step."""
        super().on_load_checkpoint(checkpoint)
        self._before = checkpoint["policy_before"]

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient norm to the trainer's `gradient_clip_val` if set, else to max_grad_norm."""
        if gradient_clip_val is not None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            self.clip_gradients(optimizer, self.max_grad_norm, "norm")
