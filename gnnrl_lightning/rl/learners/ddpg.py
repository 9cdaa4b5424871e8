"""DDPG: the LightningModule that trains a deterministic policy on a graph environment from a replay buffer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from gnnrl_lightning.checks import counts, one_of, real, whole
from gnnrl_lightning.processes import log_weight
from gnnrl_lightning.rl import ddpg_losses as ddpg
from gnnrl_lightning.rl.env.protocol import VectorGraphEnv
from gnnrl_lightning.rl.learners.base import GraphLearner
from gnnrl_lightning.rl.learners.own import check_batch
from gnnrl_lightning.rl.policies.deterministic import DDPGAgent
from gnnrl_lightning.rl.policies.outputs import Outputs, check_finite, check_gradients
from gnnrl_lightning.rl.ragged import Ragged
from gnnrl_lightning.rl.replay import Replay, ReplayLoader, Steps
from gnnrl_lightning.rl.rollout import play
from gnnrl_lightning.rl.state.graph import StateGraph

ACTION, VALUE = "actor's action", "critic's value"
"""Outputs of a policy from which it is trained."""


class DDPG(GraphLearner):
    """Trains a deterministic policy and an action-value critic on a graph environment.

    Each trainer epoch is one iteration: whole episodes are played with the current policy and truncated normal noise,
    and their steps are added to the replay buffer. Then, `gradient_steps` times, a minibatch of steps is sampled, the
    critic and the actor take one optimiser step each, and the target networks are updated:

        critic: mean((Q(s, a) - r - gamma Q'(s', mu'(s')))^2) / 2,
        actor: -mean(Q(s, mu(s))) + saturation_coeff * saturation loss of mu(s).

    Rewards are standardised with the episode rewards in the replay buffer, so their scale does not matter.
    On the CPU, the same seed gives the same search, even if it is interrupted and resumed. Several processes share
    their steps and need a strategy that allows unused parameters: `ddp_find_unused_parameters_true`.

    Args:
        env: The environment; it can also be set later (`module.env = env`), before training starts.
        make_policy: Creates the policy from (number of node features, decisions per graph): a module with
            `actor(state)` and `critic(state, actions)`, see `gnnrl_lightning.rl.policies.DDPGAgent`.
        actor_learning_rate: Adam's learning rate for the actor.
        critic_learning_rate: Adam's learning rate for the critic.
        gamma: Discount factor; 1 if the reward comes only at the end of an episode.
        tau: Step size of the target networks towards the trained networks, in (0, 1].
        credit: "end" credits rewards to the steps in which they occur; "even" spreads the sum of an episode's rewards
            evenly over its steps.
        saturation_coeff: Weight of the loss that keeps the actor's actions away from 0 and 1, where its gradient
            vanishes (`gnnrl_lightning.rl.ddpg_losses.saturation_loss`).
        replay_capacity: Maximum number of steps in the replay buffer.
        batch_size: Steps per minibatch.
        gradient_steps: Minibatches per iteration.
        critic_iterations: Number of initial iterations in which only the critic is trained.
        spread_decay: Factor on the standard deviation of the noise after each iteration, in (0, 1]; it starts at
            initial_spread.
        final_spread: Smallest standard deviation of the noise.
        proxy_warmup: Iterations in the proxy before the first one in the real environment; their steps are added to
            the same replay buffer.
        proxy_between: Iterations in the proxy after each one in the real environment.
        **common: Other arguments of `GraphLearner`.

    Raises:
        UserError: A number is out of range.

    Source: Lillicrap et al., 2016; GNN-RL (ICML 2022) uses it on graphs as an alternative to PPO.
    """

    trained: ClassVar[Mapping[str, str]] = {ACTION: "actor", VALUE: "critic"}

    def __init__(
        self,
        env: VectorGraphEnv | None = None,
        make_policy: Callable[[int, int | None], nn.Module] = DDPGAgent,
        *,
        actor_learning_rate: float = 3e-4,
        critic_learning_rate: float = 3e-3,
        gamma: float = 1.0,
        tau: float = 0.05,
        credit: Literal["end", "even"] = "even",
        saturation_coeff: float = 1.0,
        replay_capacity: int = 2000,
        batch_size: int = 32,
        gradient_steps: int = 20,
        critic_iterations: int = 1,
        spread_decay: float = 0.9,
        final_spread: float = 0.02,
        proxy_warmup: int = 100,
        proxy_between: int = 2,
        **common: Any,
    ) -> None:
        super().__init__(env, make_policy, proxy_warmup=proxy_warmup, proxy_between=proxy_between, **common)
        counts(replay_capacity=replay_capacity, batch_size=batch_size, gradient_steps=gradient_steps)
        real("actor_learning_rate", actor_learning_rate, 0, ends="(]")
        real("critic_learning_rate", critic_learning_rate, 0, ends="(]")
        real("final_spread", final_spread, 0, ends="(]")
        real("tau", tau, 0, 1, "(]")
        real("spread_decay", spread_decay, 0, 1, "(]")
        whole("critic_iterations", critic_iterations)
        real("saturation_coeff", saturation_coeff, 0)
        real("gamma", gamma, 0, 1)
        one_of("credit", credit, ddpg.CREDITS)
        self.automatic_optimization = False
        self.target: Any = None
        self.actor_learning_rate, self.critic_learning_rate = actor_learning_rate, critic_learning_rate
        self.gamma, self.tau, self.credit = gamma, tau, credit
        self.saturation_coeff = saturation_coeff
        self.replay, self.batch_size = Replay(replay_capacity), batch_size
        self.gradient_steps, self.critic_iterations = gradient_steps, critic_iterations
        self.spread_decay, self.final_spread = spread_decay, final_spread

    def configure_model(self) -> None:
        """Create the policy and its copy, the target networks."""
        super().configure_model()
        if self.target is None:
            self.target = copy.deepcopy(self.policy).requires_grad_(False)

    def outputs(self, state: StateGraph) -> Outputs:
        """Actions, and their value in each state."""
        action = self.policy.actor(state)
        value = self.policy.critic(state, action)
        each, shape = (state.num_graphs,), (len(state.decision_batch),)
        return {ACTION: (action, shape), VALUE: (value, each)}

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One Adam optimiser for the critic and one for the actor."""
        return [
            torch.optim.Adam(self.policy.critic.parameters(), lr=self.critic_learning_rate),
            torch.optim.Adam(self.policy.actor.parameters(), lr=self.actor_learning_rate),
        ]

    def train_dataloader(self) -> ReplayLoader:
        """The loader that plays an iteration's episodes before it yields its first minibatch."""
        return ReplayLoader(
            self._play,
            self.replay,
            lambda: self.trainer.current_epoch,
            self.gradient_steps,
            self.batch_size,
            seed=self.seed,
            rank=self.trainer.global_rank,
        )

    @property
    def spread(self) -> float:
        """Standard deviation of the noise in the current iteration."""
        iteration = self.trainer.current_epoch
        return ddpg.decayed_spread(self.initial_spread, self.spread_decay, self.final_spread, iteration)

    def _play(self, iteration: int) -> None:
        self.replay.add(self._shared(self.measured(self._steps, iteration)))
        self._rollout["rollout/spread"] = self.spread

    def _steps(self, env: VectorGraphEnv, episodes: int, seed: int) -> tuple[Steps, Tensor]:
        def act(state: StateGraph) -> tuple[Tensor, dict[str, Tensor | Ragged]]:
            chosen = self.policy.actor(state)
            check_finite(self.policy, action=chosen)
            actions = ddpg.explore(chosen, self.spread)
            return actions, {"actions": Ragged.of(actions, state)}

        steps = play(env, act, episodes, seed, self.device)
        alive = steps.pop("alive")
        totals = (steps["rewards"] * alive).sum(0)
        steps["rewards"], steps["shares"] = ddpg.CREDITS[self.credit](steps["rewards"], alive)
        steps["totals"] = totals.expand_as(alive)
        return Steps(**{name: rows[alive] for name, rows in steps.items()}), totals

    def _shared(self, steps: Steps) -> Steps:
        """The steps of all processes."""
        if self.trainer.world_size == 1:
            return steps
        rows = steps.rows()
        actions = Ragged(self._gathered(steps.actions.values), self._gathered(steps.actions.counts))
        gathered = {name: self._gathered(own) for name, own in rows.items() if name != "actions"}
        return Steps(**gathered, actions=actions)

    def _gathered(self, own: Tensor) -> Tensor:
        """Rows of all processes, (N, ...) on the CPU; processes may have different numbers of rows."""
        gather = self.trainer.strategy.all_gather
        counts = gather(torch.tensor([len(own)], device=self.device)).flatten().tolist()
        padded = torch.cat([own, own.new_zeros(max(counts) - len(own), *own.shape[1:])])
        parts = gather(padded.to(self.device)).cpu()
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def training_step(self, batch: Steps, batch_idx: int) -> None:
        """One step each of the critic, the actor and the target networks.

        Raises:
            UserError: A loader of the user's gives something else, or the policy gives values that are not finite.
        """
        check_batch(self, batch, Steps)
        critic_optimizer, actor_optimizer = self.optimizers()  # pyright: ignore[reportGeneralTypeIssues]
        policy, environment = self.policy, self.environment
        state = environment.graphs(batch.observations).to(self.device)
        mean, spread = (moment.to(self.device) for moment in self.replay.moments())
        rewards = ddpg.standardise(batch.rewards, batch.shares, mean, spread)
        targets = ddpg.q_target(rewards, self._next_values(batch), batch.done, self.gamma)
        metrics = {}

        value = policy.critic(state, batch.actions.values)
        critic = ddpg.critic_loss(value, targets)
        check_finite(policy, value=value, loss=critic)
        metrics["losses/critic"] = critic.detach()
        metrics["losses/critic_grad_norm"] = self._optimise(critic_optimizer, critic, policy.critic)
        if self.trainer.current_epoch >= self.critic_iterations:
            self.toggle_optimizer(actor_optimizer)
            actions = policy.actor(state)
            actor = ddpg.actor_loss(policy.critic(state, actions))
            actor = actor + self.saturation_coeff * ddpg.saturation_loss(actions)
            metrics["losses/actor"] = actor.detach()
            metrics["losses/actor_grad_norm"] = self._optimise(actor_optimizer, actor, policy.actor)
            self.untoggle_optimizer(actor_optimizer)
        ddpg.soft_update(self.target, policy, self.tau)
        self.log_dict(
            metrics,
            on_step=False, on_epoch=True, batch_size=log_weight(len(batch)), sync_dist=self.trainer.world_size > 1,
        )  # fmt: skip

    @torch.no_grad()
    def _next_values(self, batch: Steps) -> Tensor:
        """The target networks' values (N,) of the next states; 0 after the end of an episode."""
        values, ahead = torch.zeros_like(batch.rewards), ~batch.done
        if ahead.any():
            state = self.environment.graphs(batch.next_observations[ahead]).to(self.device)
            values[ahead] = self.target.critic(state, self.target.actor(state))
        return values

    def _optimise(self, optimizer: Any, loss: Tensor, part: nn.Module) -> Tensor:
        """Take an optimiser step on a part of the policy; return the gradient norm before clipping."""
        optimizer.zero_grad()
        self.manual_backward(loss)
        check_gradients(part)
        norm = nn.utils.clip_grad_norm_(part.parameters(), self.max_grad_norm)
        optimizer.step()
        return norm

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the replay buffer."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["replay"] = self.replay.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the replay buffer."""
        super().on_load_checkpoint(checkpoint)
        self.replay.load_state_dict(checkpoint["replay"])
