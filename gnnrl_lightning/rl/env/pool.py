"""Several environments, of several networks and budgets, played as one: a policy learns from all of them at once."""

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
    """An environment made of several (`gnnrl_lightning.rl.env.VectorGraphEnv`), for example networks x budgets.

    The episodes of an iteration are shared out among all of them, or among some that are drawn anew each time, as
    evenly as can be. States are batches of graphs of different networks, which the policy head "node" fits.

    An observation is the number of its environment, then the row of that environment, then zeros up to the longest.

    Args:
        environments: The environments by name; names appear in logs. All have the same features of nodes, and each has
            one number of decisions.
        drawn: Environments that are played in an iteration, drawn without replacement; None: all.

    Attributes:
        names: The names.
        action_dim: Decisions in a graph; None where the environments have different numbers of them.
        initial_action: The mean over the environments.
        setting: What the states and actions of a policy depend on, the same in all environments.
        played: (episodes,) int64, the number of the environment of each episode since the last reset.

    Raises:
        UserError: There is no environment, they do not fit together, or drawn is out of range.
    """

    def __init__(self, environments: Mapping[str, VectorGraphEnv], drawn: int | None = None) -> None:
        self.names, self._environments = tuple(environments), tuple(environments.values())
        if not self.names:
            raise UserError("the pool has no environment: expected one at least, by name")
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
        # Rows of all iterations have one length, whichever environments are drawn.
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
        """Evaluations so far, of all environments."""
        return sum(env.evaluations for env in self._environments)

    @property
    def evaluations_of(self) -> Tensor:
        """Evaluations so far of each environment, (environments,) int64."""
        return torch.tensor([env.evaluations for env in self._environments], dtype=torch.int64)

    def sums_of(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of what the episodes of each environment have, and their number.

        Args:
            values: (episodes,) since the last reset.

        Returns:
            (environments,) each, 0 where none was played.
        """
        sums = values.new_zeros(len(self.names)).index_add_(0, self.played, values)
        return sums, self.played.bincount(minlength=len(self.names)).to(values)

    def reset(self, episodes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Start episodes, shared out among all environments, or among those that the generator draws.

        Args:
            episodes: Number of episodes B, at least one for each environment that is played.
            generator: Decides which environments are played, and all that is random in them.

        Returns:
            Observations (B, S), and (B,) whether an episode is over before it began.

        Raises:
            UserError: There are fewer episodes than environments to play.
        """
        if episodes < self.drawn:
            raise UserError(
                f"{episodes} episodes are too few for {self.drawn} environments: expected one for each, raise "
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
        """Take one action in each episode; an environment whose episodes are all over is left alone.

        Args:
            actions: (D,) in [0, 1], the decisions of all episodes, one episode after the other.

        Returns:
            Observations (B, S), rewards (B,), and (B,) bool: finished.

        Raises:
            ValueError: There are more or fewer actions than decisions.
        """
        of_episodes = torch.tensor(self._decisions)[self.played]
        if actions.shape != (int(of_episodes.sum()),):
            raise ValueError(f"actions have shape {tuple(actions.shape)}, expected ({int(of_episodes.sum())},)")
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
        """The batch of graphs (on the CPU) of the rows of observations (B, S), in their order."""
        observations = observations.cpu()
        numbers = observations[:, 0].long()
        states = [
            self._environments[number].graphs(observations[numbers == number, 1 : 1 + self._sizes[number]])
            for number in numbers.unique().tolist()
        ]
        return reorder_graphs(join_states(states), numbers.argsort(stable=True))
