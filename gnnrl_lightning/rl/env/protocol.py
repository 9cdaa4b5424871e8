"""What a graph environment is for the learning module."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class VectorGraphEnv(Protocol):
    """A task on graphs, several episodes of which are stepped as one batch.

    Observations are plain tensors, one row an episode, that hold what changes (for pruning: widths, limits,
    steps left); `graphs` builds the batch of graphs that the policy sees from such rows. So a rollout is a
    few small tensors: it is shuffled, moved, and saved in a checkpoint as such, and any subset of it can be made graphs
    again.

    A batch of graphs is a `torch_geometric.data.Batch` (or what serves the actor-critic as well) with `x`,
    `edge_index`, `batch`, `num_graphs`; and for the policies of this package `decision_index` (2, I) pairs of
    node and decision, `decision_weight` (I,), weights that sum to one for each decision, and `num_decisions`
    of the whole batch, equally many in each graph.

    Attributes:
        state_dim: Features of a node.
        action_dim: Decisions in a graph, each an action in [0, 1].
        initial_action: Action in (0, 1) on which a first policy should centre.
    """

    state_dim: int
    action_dim: int
    initial_action: float

    @property
    def evaluations(self) -> int:
        """Rewards computed so far that cost an evaluation."""
        ...

    def reset(self, episodes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Start a number of episodes; whatever is random in them comes from the generator.

        Returns:
            Observations (episodes, S) and whether an episode is over before it began, (episodes,) bool.
        """
        ...

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take one action in each episode; actions of finished episodes are ignored.

        Args:
            actions: (episodes, action_dim) in [0, 1].

        Returns:
            Observations (episodes, S), rewards of this step (episodes,), and (episodes,) bool: episode
            finished.
        """
        ...

    def graphs(self, observations: Tensor) -> Any:
        """The batch of graphs (on the CPU) of the rows of observations (B, S)."""
        ...
