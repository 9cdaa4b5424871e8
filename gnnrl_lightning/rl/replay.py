"""Replay buffer of past steps as plain tensors, and the sized loader that samples minibatches from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.rl.ragged import Ragged, concatenated, from_plain, plain
from gnnrl_lightning.seeds import generator_for


@dataclass  # not frozen: Lightning moves batches between devices by setting their fields
class Steps:
    """Steps of episodes, one per row; also used for minibatches.

    Attributes:
        observations: (N, S) rows for `VectorGraphEnv.graphs`.
        actions: N rows of actions in [0, 1], one action per decision of the row's graph.
        rewards: (N,) reward credited to the step.
        shares: (N,) share of the episode's baseline that the step carries.
        totals: (N,) reward of the whole episode.
        next_observations: (N, S) observations after the step.
        done: (N,) bool, True for the last step of an episode.
    """

    observations: Tensor
    actions: Ragged
    rewards: Tensor
    shares: Tensor
    totals: Tensor
    next_observations: Tensor
    done: Tensor

    def __len__(self) -> int:
        return len(self.rewards)

    def rows(self) -> dict[str, Any]:
        """The fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Replay:
    """Ring buffer of the latest steps: once it is full, new steps replace the oldest.

    Args:
        capacity: Maximum number of steps.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._rows: dict[str, Any] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._rows["rewards"]) if self._rows else 0

    def add(self, steps: Steps) -> None:
        """Add steps; if there are more than the capacity, only the last ones are kept."""
        held, latest = len(self), torch.arange(len(steps))[-self.capacity :]
        new = {name: rows[latest] for name, rows in steps.rows().items()}
        # Index of each slot's new content in the concatenation of old and new rows.
        source = torch.arange(min(held + len(latest), self.capacity))
        source[(self._next + torch.arange(len(latest))) % self.capacity] = held + torch.arange(len(latest))
        both = {name: concatenated([self._rows[name], rows]) for name, rows in new.items()} if self._rows else new
        self._rows = {name: rows[source] for name, rows in both.items()}
        self._next = (self._next + len(latest)) % self.capacity

    def sample(self, count: int, generator: torch.Generator) -> Steps:
        """Sample `count` steps with replacement."""
        index = torch.randint(len(self), (count,), generator=generator)
        return Steps(**{name: rows[index] for name, rows in self._rows.items()})

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the episode rewards in the buffer, scalars.

        An episode is weighted by the shares of its steps that are still in the buffer.
        """
        totals, shares = self._rows["totals"], self._rows["shares"]
        mean = (totals * shares).sum() / shares.sum()
        return mean, ((totals - mean).square() * shares).sum().div(shares.sum()).sqrt()

    def state_dict(self) -> dict[str, Any]:
        """The whole state as plain tensors and numbers."""
        return {"rows": {name: plain(rows) for name, rows in self._rows.items()}, "next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`."""
        self._rows = {name: from_plain(rows) for name, rows in state["rows"].items()}
        self._next = state["next"]


class ReplayLoader:
    """Plays the episodes of an iteration, then yields a fixed number of minibatches from the replay buffer.

    The loader is stateful: a run that resumes in the middle of an iteration starts with the next minibatch.

    Args:
        play: Plays the episodes of an iteration and adds their steps to the replay buffer.
        replay: The replay buffer.
        iteration: Returns the current iteration.
        batches: Minibatches per iteration.
        batch_size: Steps per minibatch.
        seed: Seed of the sampling.
        rank: Rank of this process.
    """

    def __init__(
        self,
        play: Callable[[int], None],
        replay: Replay,
        iteration: Callable[[], int],
        batches: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
    ) -> None:
        self._play, self._replay, self._iteration = play, replay, iteration
        self._batches, self._batch_size = batches, batch_size
        self._seed, self._rank = seed, rank
        self._dealt = 0

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[Steps]:
        iteration = self._iteration()
        if self._dealt == 0:
            self._play(iteration)
        for number in range(self._dealt, self._batches):
            self._dealt = (number + 1) % self._batches
            yield self._replay.sample(self._batch_size, generator_for(self._seed, iteration, self._rank, 1, number))

    def state_dict(self) -> dict[str, Any]:
        """Number of minibatches of the iteration that have been yielded."""
        return {"dealt": self._dealt}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`."""
        self._dealt = state["dealt"]
