"""What learning rules share: an environment, a policy made for it, counted evaluations, seeds and logs."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sized
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.rl.env.pool import EnvPool
from gnnrl_lightning.rl.env.protocol import VectorGraphEnv
from gnnrl_lightning.rl.policies.policy_file import described, load_policy, save_policy
from gnnrl_lightning.rl.state.graph import StateGraph
from gnnrl_lightning.seeds import derived_seed
from gnnrl_lightning.speed.memory import keep_freed_memory

Experience = TypeVar("Experience", bound=Sized)


def at_least_one(**counts: int) -> None:
    """Refuse counts below 1 by name."""
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"{name} is {count}, expected at least 1")


def not_negative(**counts: int) -> None:
    """Refuse counts below 0 by name."""
    for name, count in counts.items():
        if count < 0:
            raise UserError(f"{name} is {count}, expected at least 0")


def positive(**values: float) -> None:
    """Refuse numbers that are not positive by name."""
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"{name} is {value}, expected a positive number")


class GraphLearner(pl.LightningModule, ABC):
    """Base of the modules that train a policy on an environment whose observations are graphs.

    An epoch of the trainer is an iteration: the rule plays whole episodes with its present policy (through
    `measured`, which counts and logs them), then takes a fixed number of optimiser steps. Several processes play
    episodes of their own, and average their gradients.

    With a proxy, an environment whose rewards are estimates that cost microseconds, the search has two fidelities: the
    first `proxy_warmup` iterations play `proxy_episodes` each in the proxy, then every iteration in the real
    environment is followed by `proxy_between` in the proxy, which has learnt from what the real one said.

    Args:
        env: The environment; it may also be set later (`module.env = env`), before the trainer starts.
        make_policy: Makes the policy for (features of a node, decisions in a graph), the latter None where graphs have
            different numbers of them.
        episodes_per_iteration: Episodes of an iteration, in each process.
        max_grad_norm: Largest norm of the gradient; where a rule has several optimisers, of each.
        initial_spread: Standard deviation of the first policy's actions around the environment's initial action.
        proxy: An environment of the same states with estimated rewards, or None; it may be set later too.
        proxy_warmup: Iterations in the proxy before the first one in the environment.
        proxy_between: Iterations in the proxy after each one in the environment.
        proxy_episodes: Episodes of an iteration in the proxy, in each process.
        policy_file: File of a trained policy to start from (`gnnrl_lightning.rl.policies.save_policy`); None: a fresh
            one.
        seed: Of the policy's weights and of all sampling.

    Attributes:
        policy: The policy, a module; None before it is made.
        evaluations: () evaluations so far, of all processes.
        evaluations_of: (environments,) those of each environment of an `EnvPool`; there where `env` is one.
        reward_best: () the largest reward of an evaluation so far.
        exchange: Called in each process after the episodes of an iteration in the environment; where processes share
            what they learn about candidates, it may be set.

    Raises:
        UserError: A number is out of range.
    """

    evaluations: Tensor
    evaluations_of: Tensor
    reward_best: Tensor

    def __init__(
        self,
        env: VectorGraphEnv | None,
        make_policy: Callable[[int, int | None], nn.Module],
        *,
        episodes_per_iteration: int = 8,
        max_grad_norm: float = 5.0,
        initial_spread: float = 0.2,
        proxy: VectorGraphEnv | None = None,
        proxy_warmup: int = 20,
        proxy_between: int = 4,
        proxy_episodes: int = 64,
        policy_file: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        at_least_one(episodes_per_iteration=episodes_per_iteration, proxy_episodes=proxy_episodes)
        not_negative(proxy_warmup=proxy_warmup, proxy_between=proxy_between)
        positive(max_grad_norm=max_grad_norm, initial_spread=initial_spread)
        self.env, self.proxy = env, proxy
        self.proxy_warmup, self.proxy_between, self.proxy_episodes = proxy_warmup, proxy_between, proxy_episodes
        self.policy: Any = None
        self._make_policy = make_policy
        self.episodes_per_iteration, self.max_grad_norm = episodes_per_iteration, max_grad_norm
        self.initial_spread, self.policy_file, self.seed = initial_spread, policy_file, seed
        # Buffers, so that a checkpoint holds them.
        self.register_buffer("evaluations", torch.zeros((), dtype=torch.int64))
        self.register_buffer("reward_best", torch.tensor(-torch.inf))
        self._rollout: dict[str, float] = {}
        self.exchange: Callable[[], None] = lambda: None

    @property
    def environment(self) -> VectorGraphEnv:
        """The environment; a `UserError` where there is none."""
        if self.env is None:
            name = type(self).__name__
            raise UserError(f"{name} has no environment: pass env, or set module.env before the trainer starts")
        return self.env

    @property
    def spreads(self) -> tuple[float, ...]:
        """Standard deviations of a first policy's actions, as its `centre_on` takes them."""
        return (self.initial_spread,)

    def iterations(self, real: int) -> int:
        """Iterations of a whole search with so many in the real environment.

        The last real iteration is not followed by any in the proxy: nothing would come of them.
        """
        if self.proxy is None:
            return real
        return self.proxy_warmup + real + max(real - 1, 0) * self.proxy_between

    def in_proxy(self, iteration: int) -> bool:
        """Whether an iteration is played in the proxy."""
        if self.proxy is None:
            return False
        after = iteration - self.proxy_warmup
        return after < 0 or after % (1 + self.proxy_between) > 0

    def configure_model(self) -> None:
        """Make the policy for the environment's sizes, from the seed or from a file.

        Raises:
            UserError: The file is missing, or its policy does not fit.
        """
        if self.policy is not None:
            return
        env = self.environment
        if isinstance(env, EnvPool):  # a buffer, so that a checkpoint holds it
            self.register_buffer("evaluations_of", torch.zeros_like(env.evaluations_of))
        keep_freed_memory()
        try:
            with torch.random.fork_rng([]), torch.device("cpu"):  # Lightning calls this with its device for new tensors
                torch.manual_seed(derived_seed(self.seed))
                self.policy = self._make_policy(env.state_dim, env.action_dim)
                if hasattr(self.policy, "centre_on"):
                    self.policy.centre_on(env.initial_action, *self.spreads)
                if self.policy_file is not None:
                    load_policy(self.policy, self.policy_file, self._setting)
                self._try_policy(env)
        except BaseException:
            self.policy = None  # the next call makes it anew, and fails likewise
            raise
        self.policy.to(self.device)

    def _try_policy(self, env: VectorGraphEnv) -> None:
        """Let the policy act on first states, two at least: better now than after an hour of evaluations."""
        training = self.policy.training
        self.policy.eval()
        described(self.policy)
        with torch.no_grad():
            episodes = max(2, self.episodes_per_iteration)
            state = env.graphs(env.reset(episodes, torch.Generator().manual_seed(0))[0])
            for name, (found, shape) in self.outputs(state).items():
                if found.shape != shape:
                    raise ValueError(f"{name} has shape {tuple(found.shape)}, expected {shape}")
                if not found.isfinite().all():
                    raise ValueError(f"{name} is not finite")
        self.policy.train(training)

    @abstractmethod
    def outputs(self, state: StateGraph) -> dict[str, tuple[Tensor, tuple[int]]]:
        """What the policy makes of a state, by name, and the shapes that it should have.

        Args:
            state: Batch of state graphs.
        """

    @property
    def _setting(self) -> dict[str, str]:
        return getattr(self.environment, "setting", {})

    def save_policy(self, path: Path) -> None:
        """Write the policy, with the setting in which it has learnt, for `policy_file` of another module."""
        save_policy(self.policy, path, self._setting)

    def sum_over_processes(self, value: Tensor) -> Tensor:
        """Sum over processes, in each of them."""
        return self._reduced(value, "sum")

    def max_over_processes(self, value: Tensor) -> Tensor:
        """Maximum over processes, in each of them."""
        return self._reduced(value, "max")

    def _reduced(self, value: Tensor, operation: str) -> Tensor:
        if self.trainer.world_size == 1:  # some devices, Apple's for one, have no numbers of double precision
            return value
        return self.trainer.strategy.reduce(value.to(self.device), reduce_op=operation).to(value.device)

    def measured(
        self, play: Callable[[VectorGraphEnv, int, int], tuple[Experience, Tensor]], iteration: int
    ) -> Experience:
        """Play the episodes of an iteration, count their evaluations and note their rewards.

        Args:
            play: From an environment, a number of episodes B and a seed to the steps played, one item each, and
                the reward of each episode (B,).
            iteration: With the module's seed and the process it decides the seed.

        Returns:
            The steps.
        """
        in_proxy, start = self.in_proxy(iteration), time.perf_counter()
        env = self.proxy if in_proxy and self.proxy is not None else self.environment
        before = env.evaluations
        before_of = env.evaluations_of if isinstance(env, EnvPool) else None
        training = self.policy.training
        self.policy.eval()
        steps, rewards = play(
            env,
            self.proxy_episodes if in_proxy else self.episodes_per_iteration,
            derived_seed(self.seed, iteration, self.trainer.global_rank, 0),
        )
        self.policy.train(training)
        if not in_proxy:
            self.exchange()
        seconds = time.perf_counter() - start
        counts = [env.evaluations - before, len(rewards), rewards.sum(), len(steps)]
        new, episodes, total, taken = self.sum_over_processes(torch.tensor(counts, dtype=torch.float64)).tolist()
        self._rollout = {"rollout/steps": taken / episodes}
        if in_proxy:
            self._rollout |= {"proxy/reward_mean": total / episodes, "proxy/episodes_per_second": episodes / seconds}
        else:
            self.evaluations += int(new)
            best = self.max_over_processes(rewards.max()).to(self.device)
            self.reward_best.copy_(torch.maximum(self.reward_best, best))
            self._rollout |= {"rollout/reward_mean": total / episodes, "charts/eps": new / seconds}
        if isinstance(env, EnvPool) and before_of is not None:
            self._rollout |= self._of_each(env, rewards, env.evaluations_of - before_of, in_proxy)
        return steps

    def _of_each(self, pool: EnvPool, rewards: Tensor, new: Tensor, in_proxy: bool) -> dict[str, float]:
        """What an iteration was like in each environment of a pool, and the evaluations in each so far."""
        sums, counts = self.sum_over_processes(torch.stack(pool.sums_of(rewards)).double())
        part = "proxy" if in_proxy else "rollout"
        found = {
            f"{part}/reward_mean/{name}": total / count
            for name, total, count in zip(pool.names, sums.tolist(), counts.tolist(), strict=True)
            if count
        }
        if not in_proxy:
            self.evaluations_of += self.sum_over_processes(new).to(self.evaluations_of)
            spent = self.evaluations_of.tolist()
            found |= {f"search/evaluations/{name}": float(own) for name, own in zip(pool.names, spent, strict=True)}
        return found

    def on_train_epoch_end(self) -> None:
        """Log what the iteration's episodes were like."""
        metrics = self._rollout | {"search/evaluations": float(self.evaluations)}
        if self.evaluations > 0:
            metrics["rollout/reward_best"] = float(self.reward_best)
        self.log_dict(metrics, sync_dist=self.trainer.world_size > 1, batch_size=1)
