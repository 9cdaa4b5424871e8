"""Base class of the learners: environment, policy creation, evaluation counts, seeds and logging."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from gnnrl_lightning.checks import as_path, as_seed, counts, real, shown, whole
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.rl.env.pool import EnvPool
from gnnrl_lightning.rl.env.protocol import Evaluate, VectorGraphEnv
from gnnrl_lightning.rl.policies.outputs import Outputs, check_policy
from gnnrl_lightning.rl.policies.policy_file import load_policy, save_policy
from gnnrl_lightning.rl.state.graph import StateGraph
from gnnrl_lightning.seeds import derived_seed
from gnnrl_lightning.speed.memory import keep_freed_memory

Experience = TypeVar("Experience", bound=Sized)


class GraphLearner(pl.LightningModule, ABC):
    """Base class of the learners: LightningModules that train a policy on a graph environment.

    Each trainer epoch is one iteration: the learner plays whole episodes with the current policy (through `measured`,
    which counts and logs them), then takes a fixed number of optimiser steps. Each process plays its own episodes;
    gradients are averaged over processes.

    A proxy is an environment with estimated rewards that cost microseconds. With a proxy, the search has two
    fidelities: the first `proxy_warmup` iterations play `proxy_episodes` each in the proxy. After that, each iteration
    in the real environment is followed by `proxy_between` iterations in the proxy, which is refitted to the real
    rewards.

    Args:
        env: The environment; it can also be set later (`module.env = env`), before training starts.
        make_policy: Creates the policy from (number of node features, decisions per graph); the latter is None if
            graphs differ in their number of decisions.
        episodes_per_iteration: Episodes per iteration and process.
        max_grad_norm: Maximum gradient norm; applies to each optimiser separately.
        initial_spread: Standard deviation of the untrained policy's actions around the environment's initial action.
        proxy: An environment with the same states and estimated rewards, or None; it can also be set later.
        proxy_warmup: Iterations in the proxy before the first one in the real environment.
        proxy_between: Iterations in the proxy after each one in the real environment.
        proxy_episodes: Episodes per iteration in the proxy and process.
        policy_file: File of a trained policy to start from (`gnnrl_lightning.rl.policies.save_policy`); None: start
            from random weights.
        seed: Seed of the policy's weights and of all sampling.

    Attributes:
        policy: The policy module; None before `configure_model`.
        evaluations: () number of evaluations so far, over all processes.
        evaluations_of: (environments,) number of evaluations in each environment; exists only if `env` is an `EnvPool`.
        reward_best: () largest reward of an evaluation so far.
        evaluate: Scores the most promising of the final widths of imagined episodes; None: the episodes of real
            iterations are scored themselves.
        exchange: Called in each process after the episodes of an iteration in the real environment; set it to exchange
            evaluations between processes.

    Raises:
        UserError: A value is of another type, or out of range.
    """

    trained: ClassVar[Mapping[str, str]] = {}
    """Each of the `outputs` from which gradients reach the policy -> attribute of the part that returns it."""
    evaluations: Tensor
    evaluations_of: Tensor
    reward_best: Tensor

    def __init__(
        self,
        env: VectorGraphEnv | None,
        make_policy: Callable[[int, int | None], nn.Module],
        *,
        episodes_per_iteration: int = 4,
        max_grad_norm: float = 5.0,
        initial_spread: float = 0.2,
        proxy: VectorGraphEnv | None = None,
        proxy_warmup: int = 10,
        proxy_between: int = 2,
        proxy_episodes: int = 64,
        policy_file: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        counts(episodes_per_iteration=episodes_per_iteration, proxy_episodes=proxy_episodes)
        whole("proxy_warmup", proxy_warmup)
        whole("proxy_between", proxy_between)
        as_seed("seed", seed)
        if policy_file is not None:
            as_path("policy_file", policy_file, other=", or None")
        for name, each in (("env", env), ("proxy", proxy)):
            if each is not None and not callable(getattr(each, "reset", None)):
                raise UserError(f"{name} is {shown(each)}: expected a graph environment, or None")
        if not callable(make_policy):
            raise UserError(f"make_policy is {shown(make_policy)}: expected a function that makes the policy")
        real("max_grad_norm", max_grad_norm, 0, ends="(]")
        real("initial_spread", initial_spread, 0, ends="(]")
        self.env, self.proxy = env, proxy
        self.proxy_warmup, self.proxy_between, self.proxy_episodes = proxy_warmup, proxy_between, proxy_episodes
        self.policy: Any = None
        self._make_policy = make_policy
        self.episodes_per_iteration, self.max_grad_norm = episodes_per_iteration, max_grad_norm
        self.initial_spread, self.policy_file, self.seed = initial_spread, policy_file, seed
        # Buffers are stored in checkpoints.
        self.register_buffer("evaluations", torch.zeros((), dtype=torch.int64))
        self.register_buffer("reward_best", torch.tensor(-torch.inf))
        self._rollout: dict[str, float] = {}
        self.exchange: Callable[[], None] = lambda: None
        self.evaluate: Evaluate | None = None

    @property
    def environment(self) -> VectorGraphEnv:
        """The environment.

        Raises:
            UserError: It has not been set.
        """
        if self.env is None:
            name = type(self).__name__
            raise UserError(f"{name} has no environment: pass env, or set module.env before the trainer starts")
        return self.env

    @property
    def spreads(self) -> tuple[float, ...]:
        """Initial standard deviations of the actions: the arguments of the policy's `centre_on`."""
        return (self.initial_spread,)

    def iterations(self, real: int) -> int:
        """Total number of iterations of a search with `real` iterations in the real environment.

        No proxy iterations follow the last real one, since they could not affect the result.
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
        """Create the policy for the environment, from the seed or from a file.

        Raises:
            UserError: The file is missing, or its policy does not match.
        """
        if self.policy is not None:
            return
        env = self.environment
        if isinstance(env, EnvPool):  # buffers are stored in checkpoints
            self.register_buffer("evaluations_of", torch.zeros_like(env.evaluations_of))
        keep_freed_memory()
        try:
            with torch.random.fork_rng([]), torch.device("cpu"):  # Lightning sets its device as the default
                torch.manual_seed(derived_seed(self.seed))
                self.policy = self._make_policy(env.state_dim, env.action_dim)
                if hasattr(self.policy, "centre_on"):
                    self.policy.centre_on(env.initial_action, *self.spreads)
                if self.policy_file is not None:
                    load_policy(self.policy, self.policy_file, self._setting)
                self._try_policy(env)
        except BaseException:
            self.policy = None  # so that another call fails with the same message
            raise
        self.policy.to(self.device)

    def _try_policy(self, env: VectorGraphEnv) -> None:
        """Run the policy on at least two initial states, to report errors before the expensive evaluations."""
        training = self.policy.training
        self.policy.eval()
        state = env.graphs(env.reset(max(2, self.episodes_per_iteration), torch.Generator().manual_seed(0))[0])
        with torch.enable_grad():
            check_policy(self.policy, self.outputs(state), self.trained)
        self.policy.train(training)

    @abstractmethod
    def outputs(self, state: StateGraph) -> Outputs:
        """The policy's outputs for a state and their expected shapes, by name.

        Args:
            state: Batch of state graphs.
        """

    @property
    def _setting(self) -> dict[str, str]:
        return getattr(self.environment, "setting", {})

    def save_policy(self, path: Path) -> None:
        """Write the policy and its setting to a file, for `policy_file` of another learner."""
        save_policy(self.policy, path, self._setting)

    def sum_over_processes(self, value: Tensor) -> Tensor:
        """Sum over processes; all of them receive the result."""
        return self._reduced(value, "sum")

    def max_over_processes(self, value: Tensor) -> Tensor:
        """Maximum over processes; all of them receive the result."""
        return self._reduced(value, "max")

    def _reduced(self, value: Tensor, operation: str) -> Tensor:
        if self.trainer.world_size == 1:  # without moving to the device: Apple's has no double precision
            return value
        return self.trainer.strategy.reduce(value.to(self.device), reduce_op=operation).to(value.device)

    def measured(
        self, play: Callable[[VectorGraphEnv, int, int], tuple[Experience, Tensor]], iteration: int
    ) -> Experience:
        """Play the episodes of an iteration, count their evaluations and record their rewards.

        Args:
            play: Maps an environment, a number of episodes B and a seed to the steps played, one item per step, and
                the reward of each episode (B,).
            iteration: Number of the iteration; the seed of the episodes is derived from it, the learner's seed and the
                rank.

        Returns:
            The steps.
        """
        in_proxy, start = self.in_proxy(iteration), time.perf_counter()
        imagined = in_proxy or self.evaluate is not None
        env = self.proxy if imagined and self.proxy is not None else self.environment
        before = env.evaluations
        before_of = env.evaluations_of if isinstance(env, EnvPool) else None
        seed = derived_seed(self.seed, iteration, self.trainer.global_rank, 0)
        training = self.policy.training
        self.policy.eval()
        steps, rewards = play(env, self.proxy_episodes if imagined else self.episodes_per_iteration, seed)
        self.policy.train(training)
        episodes, total, taken = self._summed(len(rewards), rewards.sum(), len(steps))
        self._rollout = {"rollout/steps": taken / episodes}
        if imagined:
            rate = episodes / (time.perf_counter() - start)
            self._rollout |= {"proxy/reward_mean": total / episodes, "proxy/episodes_per_second": rate}
        if not in_proxy:
            new = env.evaluations - before
            if self.evaluate is not None:
                rewards = self.evaluate(cast(Any, env).widths, self.episodes_per_iteration, seed)
                new, self._rollout = len(rewards), self._rollout | self.evaluate.figures
            self.exchange()
            self._record(rewards, new, time.perf_counter() - start)
        if isinstance(env, EnvPool) and before_of is not None:
            self._rollout |= self._of_each(env, rewards, env.evaluations_of - before_of, in_proxy)
        return steps

    def _record(self, rewards: Tensor, new: int, seconds: float) -> None:
        """Count the evaluations of an iteration and record their rewards; without any new ones the search ends."""
        count, total, evaluated = self._summed(len(rewards), rewards.sum(), new)
        if not count:
            self.trainer.should_stop = True
            return
        self.evaluations += int(evaluated)
        best = rewards.max() if len(rewards) else torch.tensor(-torch.inf)
        self.reward_best.copy_(torch.maximum(self.reward_best, self.max_over_processes(best).to(self.device)))
        self._rollout |= {"rollout/reward_mean": total / count, "charts/eps": evaluated / seconds}

    def _summed(self, *values: Any) -> list[float]:
        """Sums of values over the processes."""
        return self.sum_over_processes(torch.tensor([float(value) for value in values], dtype=torch.float64)).tolist()

    def _of_each(self, pool: EnvPool, rewards: Tensor, new: Tensor, in_proxy: bool) -> dict[str, float]:
        """Log values per environment of a pool: mean reward of the iteration, and evaluations so far."""
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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save statistics of the iteration and what was predicted of the evaluations, which a resumed search logs."""
        predicted = {} if self.evaluate is None else {"predicted": list(self.evaluate.predicted)}
        checkpoint |= {"rollout": dict(self._rollout), **predicted}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what was saved."""
        self._rollout = dict(checkpoint.get("rollout", {}))
        if self.evaluate is not None:
            self.evaluate.predicted = list(checkpoint.get("predicted", []))

    def on_train_epoch_end(self) -> None:
        """Log the statistics of the iteration's episodes."""
        metrics = self._rollout | {"search/evaluations": float(self.evaluations)}
        if self.evaluations > 0:
            metrics["rollout/reward_best"] = float(self.reward_best)
        self.log_dict(metrics, sync_dist=self.trainer.world_size > 1, batch_size=1)
