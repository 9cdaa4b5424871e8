"""Episodes played to their ends, and the sized loader that makes an epoch of the trainer an iteration of PPO."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.rl.env.protocol import VectorGraphEnv
from gnnrl_lightning.rl.ppo_losses import gae, normalise
from gnnrl_lightning.rl.ragged import Ragged, concatenated, from_plain, plain
from gnnrl_lightning.rl.state.graph import StateGraph
from gnnrl_lightning.seeds import derived_seed

ROWS_AT_ONCE = 128
"""States that are made graphs and seen by the policy at a time while episodes are played."""


@dataclass  # not frozen: Lightning moves batches between devices by setting their fields
class Transitions:
    """Transitions of whole episodes, one row each; also a minibatch of them.

    Attributes:
        observations: (N, S) rows for `VectorGraphEnv.graphs`.
        actions: N rows of raw actions, one for each decision of the row's graph.
        log_probs: (N,) log-probabilities under the policy that acted.
        values: (N,) what the critic expected.
        advantages: (N,) normalised over the rollout, all processes together.
        returns: (N,) targets of the critic.
        weight: () factor of the minibatch's loss: its count relative to an even share.
    """

    observations: Tensor
    actions: Ragged
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.log_probs)

    def rows(self, index: Tensor, weight: float) -> Transitions:
        """Some rows as a minibatch with this weight."""
        picked = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name != "weight"}
        return Transitions(**picked, weight=self.weight.new_tensor(weight))


def play(
    env: VectorGraphEnv,
    act: Callable[[Any], tuple[Tensor, dict[str, Tensor | Ragged]]],
    episodes: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Play episodes to their ends.

    Args:
        env: The environment.
        act: From a batch of B graphs with D decisions, on the device, to the actions (D,) in [0, 1], and what else is
            to be kept of the step, by name: tensors (B, ...), or `Ragged` with B rows.
        episodes: Episodes B, stepped as one batch.
        seed: Of everything random in it; the state of torch's generators is as before afterwards.
        device: Where the policy lives.

    Returns:
        On the CPU, for the T steps of the longest episode, tensors (T, B, ...) of `observations`, `rewards`,
        `next_observations`, `done`, `alive` (whether the step belongs to the episode or comes after its end) and what
        `act` kept; a `Ragged` that it kept has T B rows, in this order, so that it is indexed as the tensors are.

    Raises:
        UserError: Every episode was over before its first step.
    """
    steps: list[dict[str, Any]] = []
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():
        torch.manual_seed(seed)
        observations, done = env.reset(episodes, torch.Generator().manual_seed(seed))
        while not done.all():
            # A part of the states at a time: they fit into the caches.
            parts: list[Any] = [act(env.graphs(rows).to(device)) for rows in observations.split(ROWS_AT_ONCE)]
            actions = torch.cat([part[0] for part in parts])
            kept: dict[str, Any] = {name: concatenated([part[1][name] for part in parts]) for name in parts[0][1]}
            step = kept | {"observations": observations, "alive": ~done}
            observations, rewards, done = env.step(actions.cpu())
            step |= {"next_observations": observations, "rewards": rewards, "done": done}
            steps.append({name: _kept(value) for name, value in step.items()})
    if not steps:
        raise UserError("every episode was over before its first step (the budget is met): nothing to learn")
    return {name: _stacked([step[name] for step in steps]) for name in steps[0]}


def _kept(value: Tensor | Ragged) -> Tensor | Ragged:
    return value.cpu() if isinstance(value, Ragged) else value.detach().cpu()


def _stacked(steps: list[Any]) -> Tensor | Ragged:
    return concatenated(steps) if isinstance(steps[0], Ragged) else torch.stack(steps)


def play_without_exploring(env: VectorGraphEnv, policy: Any, device: torch.device | str = "cpu") -> None:
    """Play one episode with the actions that a policy takes when it does not explore; `env` has its last state.

    Args:
        env: The environment.
        policy: The policy: its `mode(state)` acts, or `act(state)` where it has none.
        device: Where the policy lives.
    """
    squash = getattr(policy, "squash", lambda action: action)
    mode = getattr(policy, "mode", None) or (lambda state: policy.act(state)[0])

    def act(state: StateGraph) -> tuple[Tensor, dict[str, Tensor | Ragged]]:
        return squash(mode(state)), {}

    play(env, act, 1, 0, device)


def collect(
    env: VectorGraphEnv,
    policy: Any,
    episodes: int,
    seed: int,
    gamma: float,
    gae_lambda: float,
    device: torch.device | str = "cpu",
    reduce: Callable[[Tensor], Tensor] = lambda x: x,
) -> tuple[Transitions, Tensor]:
    """Play episodes to their ends with the present policy and estimate advantages.

    Args:
        env: The environment.
        policy: The policy, with `act` and `evaluate`.
        episodes: Episodes B, stepped as one batch.
        seed: Of everything random in it; the state of torch's generators is as before afterwards.
        gamma: Discount.
        gae_lambda: See `gnnrl_lightning.rl.ppo_losses.gae`.
        device: Where the policy lives.
        reduce: Sums a tensor over processes.

    Returns:
        The transitions on the CPU, and the sum of rewards of each episode (B,).

    Raises:
        UserError: Every episode was over before its first step, or the policy has diverged.
    """
    squash = getattr(policy, "squash", lambda action: action)

    def act(state: StateGraph) -> tuple[Tensor, dict[str, Tensor | Ragged]]:
        actions, log_probs = policy.act(state)
        if log_probs.isnan().any():  # distributions may hide it: samples of Beta are clamped
            raise UserError("the policy has diverged, log-probabilities are NaN: lower model.learning_rate")
        value = getattr(policy, "state_value", None)
        values = value(state) if value else policy.evaluate(state, actions)[1]
        return squash(actions), {"actions": Ragged.of(actions, state), "log_probs": log_probs, "values": values}

    steps = play(env, act, episodes, seed, device)
    advantages = gae(steps["rewards"], steps["values"], steps["done"], gamma, gae_lambda)
    alive = steps["alive"]
    flat = {name: steps[name][alive] for name in ("observations", "actions", "log_probs", "values")}
    transitions = Transitions(
        **flat,
        advantages=normalise(advantages[alive], reduce),
        returns=(advantages + steps["values"])[alive],
        weight=torch.tensor(1.0),
    )
    return transitions, (steps["rewards"] * alive).sum(0)


class RolloutLoader:
    """Deals one iteration's transitions into a fixed number of minibatches, `epochs` times over.

    Its length is epochs x minibatches, however many transitions there are, and the same on all processes. In
    each epoch every transition is in exactly one minibatch; a minibatch of n transitions weighs n times
    minibatches over the mean number of transitions of a process, so that the weighted losses average to the
    mean over all transitions of all processes. Where there are fewer transitions than minibatches the surplus
    ones hold one row of weight 0.

    The loader is stateful: in a single process a checkpoint in the middle of an iteration holds the rest of
    it.

    Args:
        collect: Collects the transitions of an iteration.
        iteration: The present iteration.
        epochs: Passes over the transitions.
        minibatches: Minibatches in a pass.
        seed: Of the order of transitions.
        rank: This process.
        world_size: Processes.
        reduce: Sums a tensor over processes.
    """

    def __init__(
        self,
        collect: Callable[[int], Transitions],
        iteration: Callable[[], int],
        epochs: int,
        minibatches: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        reduce: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> None:
        self._collect, self._iteration = collect, iteration
        self.epochs, self.minibatches = epochs, minibatches
        self._seed, self._rank, self._world_size, self._reduce = seed, rank, world_size, reduce
        self._pending: Transitions | None = None
        self._dealt = 0

    def __len__(self) -> int:
        return self.epochs * self.minibatches

    def __iter__(self) -> Iterator[Transitions]:
        iteration = self._iteration()
        if self._pending is None:
            self._dealt = 0
            self._pending = self._collect(iteration)
        transitions = self._pending
        mean = float(self._reduce(torch.tensor(float(len(transitions))))) / self._world_size
        order = torch.Generator().manual_seed(derived_seed(self._seed, iteration, self._rank, 1))
        deals = [
            part
            for _ in range(self.epochs)
            for part in torch.randperm(len(transitions), generator=order).tensor_split(self.minibatches)
        ]
        for part in deals[self._dealt :]:
            self._dealt += 1
            if self._dealt == len(self):
                self._pending = None
            weight = len(part) * self.minibatches / mean
            yield transitions.rows(part if len(part) else torch.zeros(1, dtype=torch.long), weight)

    def drop(self) -> None:
        """Forget what is left of the iteration; the next one starts afresh."""
        self._pending = None

    def state_dict(self) -> dict[str, Any]:
        """What is left of the iteration as plain tensors; nothing where there are several processes."""
        if self._pending is None or self._world_size > 1:
            return {}
        rows = {f.name: plain(getattr(self._pending, f.name)) for f in fields(self._pending)}
        return {"dealt": self._dealt, "transitions": rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume what `state_dict` returned."""
        rows = {name: from_plain(value) for name, value in state.get("transitions", {}).items()}
        self._pending = Transitions(**rows) if rows else None
        self._dealt = state.get("dealt", 0)
