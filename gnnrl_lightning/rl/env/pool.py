"""Pool of environments for several networks and budgets, for training one policy on all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.rl.env.protocol import VectorGraphEnv
from gnnrl_lightning.rl.state.assemble import join_states, reorder_graphs


class EnvPool:
    """An environment that combines several (`gnnrl_lightning.rl.env.VectorGraphEnv`), for example networks x budgets.

    The episodes of an iteration are split as evenly as possible among all environments, or among a random subset that
    is drawn for each iteration. States are batches of graphs of different networks; the policy head "node" supports
    them.

    An observation is the index of its environment, followed by that environment's observation, padded with zeros.

    Args:
        environments: The environments by name; the names appear in logs. All must have the same number of node
            features, and each a fixed number of decisions.
        drawn: Number of environments per iteration, drawn without replacement; None: all.

    Attributes:
        names: Names of the environments.
        action_dim: Decisions per graph; None if it differs between environments.
        initial_action: Mean over the environments.
        setting: Options that define a policy's states and actions, the same in all environments.
        played: (episodes,) int64 environment index of each episode since the last reset.

    Raises:
        UserError: There is no environment, the environments are incompatible, or drawn is out of range.
    """

    def __init__(self, environments: Mapping[str, VectorGraphEnv], drawn: int | None = None) -> None:
        self.names, self._environments = tuple(environments), tuple(environments.values())
        if not self.names:
            raise UserError("the pool has no environment: expected at least one, by name")
        if drawn is not None and not 1 <= drawn <= len(self.names):
            raise UserError(f"drawn is {drawn}: expected 1 to {len(self.names)}, the environments of the pool, or None")
        self.drawn = len(self.names) if drawn is None else drawn
        self.state_dim = self._common("state_dim", "features of a node")
        self.setting: dict[str, str] = self._common("setting", "setting", {})
        counts = [env.action_dim for env in self._environments]
        for name, count in zip(self.names, counts, strict=True):
            if count is None:
                raise UserError(
                    f"environment {name} has graphs with different numbers of decisions: expected one number"
                )
        self._decisions = [int(count) for count in counts if count is not None]
        self.action_dim = self._decisions[0] if len(set(self._decisions)) == 1 else None
        self.initial_action = sum(env.initial_action for env in self._environments) / len(self.names)
        # All observations have the same length, whichever environments are drawn.
        first = [env.reset(1, torch.Generator().manual_seed(0))[0] for env in self._environments]
        self._sizes = [rows.shape[1] for rows in first]
        self.played = torch.zeros(0, dtype=torch.int64)
        self._observations, self._done = torch.zeros(0, 1 + max(self._sizes)), torch.zeros(0, dtype=torch.bool)

    def _common(self, attribute: str, what: str, default: Any = None) -> Any:
        values = [getattr(env, attribute, default) for env in self._environments]
        for name, value in zip(self.names, values, strict=True):
            if value != values[0]:
                raise UserError(
                    f"the environments of a pool differ in their {what}: {self.names[0]} has {values[0]}, {name} has "
                    f"{value}; expected the same in all"
                )
        return values[0]

    @property
    def evaluations(self) -> int:
        """Number of evaluations so far, over all environments."""
        return sum(env.evaluations for env in self._environments)

    @property
    def evaluations_of(self) -> Tensor:
        """Number of evaluations so far in each environment, (environments,) int64."""
        return torch.tensor([env.evaluations for env in self._environments], dtype=torch.int64)

    def sums_of(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Sum a quantity over the episodes of each environment, and count the episodes.

        Args:
            values: (episodes,) values of the episodes since the last reset.

        Returns:
            Sums and counts, (environments,) each; 0 for environments without episodes.
        """
        sums = values.new_zeros(len(self.names)).index_add_(0, self.played, values)
        return sums, self.played.bincount(minlength=len(self.names)).to(values)

    def reset(self, episodes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Start episodes in all environments, or in a randomly drawn subset.

        Args:
            episodes: Number of episodes B, at least one per environment.
            generator: Draws the environments, and all that is random in them.

        Returns:
            Observations (B, S), and (B,) bool: whether the episode is already over.

        Raises:
            UserError: There are fewer episodes than environments.
        """
        if episodes < self.drawn:
            raise UserError(
                f"{episodes} episodes are too few for {self.drawn} environments: expected at least one for each; raise "
                "episodes_per_iteration (proxy_episodes in a proxy), or let the pool draw fewer environments"
            )
        chosen = range(len(self.names))
        if self.drawn < len(self.names):
            chosen = sorted(torch.randperm(len(self.names), generator=generator)[: self.drawn].tolist())
        each, more = divmod(episodes, self.drawn)
        counts = [each + (place < more) for place in range(self.drawn)]
        self.played = torch.tensor(list(chosen)).repeat_interleave(torch.tensor(counts))
        observations, finished = [], []
        for number, count in zip(chosen, counts, strict=True):
            rows, done = self._environments[number].reset(count, generator)
            observations.append(self._row(number, rows))
            finished.append(done)
        self._observations, self._done = torch.cat(observations), torch.cat(finished)
        return self._observations.clone(), self._done.clone()

    def _row(self, number: int, rows: Tensor) -> Tensor:
        return functional.pad(functional.pad(rows, (1, 0), value=float(number)), (0, max(self._sizes) - rows.shape[1]))

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take one step in each episode; environments whose episodes are all over are skipped.

        Args:
            actions: (D,) in [0, 1], concatenated over episodes.

        Returns:
            Observations (B, S), rewards (B,), and (B,) bool: whether the episode is over.

        Raises:
            ValueError: The number of actions differs from the number of decisions.
        """
        of_episodes = torch.tensor(self._decisions)[self.played]
        if actions.shape != (int(of_episodes.sum()),):
            raise ValueError(f"actions have shape {tuple(actions.shape)}: expected ({int(of_episodes.sum())},)")
        of_actions = self.played.repeat_interleave(of_episodes)
        rewards = torch.zeros(len(self.played))
        for number in self.played.unique().tolist():
            own = self.played == number
            if self._done[own].all():
                continue
            rows, rewards[own], self._done[own] = self._environments[number].step(actions[of_actions == number])
            self._observations[own] = self._row(number, rows)
        return self._observations.clone(), rewards, self._done.clone()

    def graphs(self, observations: Tensor) -> Any:
        """Batch of graphs (on the CPU) for observations (B, S), in the same order."""
        observations = observations.cpu()
        numbers = observations[:, 0].long()
        states = [
            self._environments[number].graphs(observations[numbers == number, 1 : 1 + self._sizes[number]])
            for number in numbers.unique().tolist()
        ]
        return reorder_graphs(join_states(states), numbers.argsort(stable=True))
