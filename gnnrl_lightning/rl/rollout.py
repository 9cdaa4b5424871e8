"""Rollouts of whole episodes, and the sized loader that makes each trainer epoch one PPO iteration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.rl.env.protocol import VectorGraphEnv
from gnnrl_lightning.rl.policies.outputs import check_finite
from gnnrl_lightning.rl.ppo_losses import gae, normalise
from gnnrl_lightning.rl.ragged import Ragged, concatenated, from_plain, plain
from gnnrl_lightning.rl.state.graph import StateGraph
from gnnrl_lightning.seeds import derived_seed, generator_for

ROWS_AT_ONCE = 128
"""Maximum number of states per forward pass of the policy during a rollout."""


@dataclass  # not frozen: Lightning moves batches between devices by setting their fields
class Transitions:
    """Transitions of whole episodes, one per row; also used for minibatches.

    Attributes:
        observations: (N, S) rows for `VectorGraphEnv.graphs`.
        actions: N rows of raw actions, one action per decision of the row's graph.
        log_probs: (N,) log-probabilities under the policy that played the episodes.
        values: (N,) values predicted by the critic.
        advantages: (N,) advantages, standardised over the rollouts of all processes.
        returns: (N,) targets of the critic.
        weight: () weight of the minibatch's loss: its size relative to the mean size.
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
        """A minibatch of some rows with a given weight."""
        picked = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name != "weight"}
        return Transitions(**picked, weight=self.weight.new_tensor(weight))


def play(
    env: VectorGraphEnv,
    act: Callable[[Any], tuple[Tensor, dict[str, Tensor | Ragged]]],
    episodes: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Play whole episodes.

    Args:
        env: The environment.
        act: Maps a batch of B graphs with D decisions, on the device, to the actions (D,) in [0, 1] and a dictionary
            of values to record for the step: tensors (B, ...), or `Ragged` with B rows.
        episodes: Number of episodes B, stepped as one batch.
        seed: Seed of all sampling; the states of torch's global generators are restored afterwards.
        device: Device of the policy.

    Returns:
        CPU tensors (T, B, ...), T being the length of the longest episode: `observations`, `rewards`,
        `next_observations`, `done`, `alive` (False after the end of an episode) and the values recorded by `act`. A
        recorded `Ragged` has T B rows in the same order, so that flattened masks apply to it too.

    Raises:
        UserError: Every episode was over before its first step.
    """
    steps: list[dict[str, Any]] = []
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():
        torch.manual_seed(seed)
        # Not of the same seed: what is drawn for an episode would decide the noise of its actions.
        observations, done = env.reset(episodes, generator_for(seed, 1))
        while not done.all():
            # Chunks of states that fit into the CPU's caches are faster.
            parts: list[Any] = [act(env.graphs(rows).to(device)) for rows in observations.split(ROWS_AT_ONCE)]
            actions = torch.cat([part[0] for part in parts])
            kept: dict[str, Any] = {name: concatenated([part[1][name] for part in parts]) for name in parts[0][1]}
            step = kept | {"observations": observations, "alive": ~done}
            observations, rewards, done = env.step(actions.cpu())
            step |= {"next_observations": observations, "rewards": rewards, "done": done}
            steps.append({name: _kept(value) for name, value in step.items()})
    if not steps:
        raise UserError("every episode was over before its first step (the budget is met): give a smaller budget")
    return {name: _stacked([step[name] for step in steps]) for name in steps[0]}


def _kept(value: Tensor | Ragged) -> Tensor | Ragged:
    return value.cpu() if isinstance(value, Ragged) else value.detach().cpu()


def _stacked(steps: list[Any]) -> Tensor | Ragged:
    return concatenated(steps) if isinstance(steps[0], Ragged) else torch.stack(steps)


def squash_of(policy: Any) -> Callable[[Tensor], Tensor]:
    """The policy's map from raw actions to actions in [0, 1]; without one, raw actions are actions."""
    return getattr(policy, "squash", lambda action: action)


def play_without_exploring(env: VectorGraphEnv, policy: Any, device: torch.device | str = "cpu") -> None:
    """Play one episode with a policy's deterministic actions; `env` is left in the final state.

    Args:
        env: The environment.
        policy: The policy. Its `mode(state)` chooses the actions, or `act(state)` if it has no `mode`.
        device: Device of the policy.
    """
    squash = squash_of(policy)
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
    """Play whole episodes with the current policy and estimate advantages.

    Args:
        env: The environment.
        policy: The policy, with `act` and `evaluate`.
        episodes: Number of episodes B, stepped as one batch.
        seed: Seed of all sampling; the states of torch's global generators are restored afterwards.
        gamma: Discount factor.
        gae_lambda: See `gnnrl_lightning.rl.ppo_losses.gae`.
        device: Device of the policy.
        reduce: Sums a tensor over processes.

    Returns:
        The transitions on the CPU, and the sum of the rewards of each episode (B,).

    Raises:
        UserError: Every episode was over before its first step, or the policy has diverged.
    """
    squash = squash_of(policy)

    def act(state: StateGraph) -> tuple[Tensor, dict[str, Tensor | Ragged]]:
        actions, log_probs = policy.act(state)
        value = getattr(policy, "state_value", None)
        values = value(state) if value else policy.evaluate(state, actions)[1]
        # Actions may look valid if the rest does not: samples of Beta are clamped.
        check_finite(policy, log_probability=log_probs, value=values)
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
    """Splits the transitions of an iteration into a fixed number of minibatches, once per epoch.

    The length is epochs x minibatches on all processes, regardless of the number of transitions. In each epoch every
    transition is in exactly one minibatch. A minibatch of n transitions has weight n * minibatches / (mean number of
    transitions per process), so that the weighted losses average to the mean over the transitions of all processes.
    If there are fewer transitions than minibatches, the empty minibatches hold one row with weight 0.

    The loader is stateful: in a single process, a checkpoint in the middle of an iteration stores the rest of it.

    Args:
        collect: Collects the transitions of an iteration.
        iteration: Returns the current iteration.
        epochs: Passes over the transitions.
        minibatches: Minibatches per pass.
        seed: Seed of the order of the transitions.
        rank: Rank of this process.
        world_size: Number of processes.
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

    @property
    def done(self) -> bool:
        """Whether the last minibatch of the iteration has been dealt; Lightning's numbers differ where it resumes."""
        return self._pending is None

    def drop(self) -> None:
        """Discard the rest of the iteration."""
        self._pending = None

    def state_dict(self) -> dict[str, Any]:
        """The rest of the iteration as plain tensors; empty if there are several processes."""
        if self._pending is None or self._world_size > 1:
            return {}
        rows = {f.name: plain(getattr(self._pending, f.name)) for f in fields(self._pending)}
        return {"dealt": self._dealt, "transitions": rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`."""
        rows = {name: from_plain(value) for name, value in state.get("transitions", {}).items()}
        self._pending = Transitions(**rows) if rows else None
        self._dealt = state.get("dealt", 0)
