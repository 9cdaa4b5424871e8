"""What a graph environment is for the learning module."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class VectorGraphEnv(Protocol):
    """A task on graphs, several episodes of which are stepped as one batch.

    Observations are plain tensors, one row an episode, that hold what changes (for pruning: widths, limits,
    steps left); `graphs` builds the batch of graphs that the policy sees from such rows. So a rollout is a
    few small tensors: it can be shuffled, moved and saved in a checkpoint, and graphs can be built of any of its rows.

    A batch of graphs is a `torch_geometric.data.Batch` (or what serves the policy as well) with the fields of
    `gnnrl_lightning.rl.state.graph.StateGraph` that the policy reads. Decisions are flat: graphs may have different
    numbers of them, and `decision_batch` has the graph of each.

    Attributes:
        state_dim: Features of a node.
        action_dim: Decisions in a graph, each an action in [0, 1]; None where graphs have different numbers of them.
        initial_action: Action in (0, 1) on which a first policy should centre.
    """

    state_dim: int
    initial_action: float

    @property
    def action_dim(self) -> int | None:
        """Decisions in a graph."""
        ...

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
            actions: (D,) in [0, 1], the decisions of all episodes, one episode after the other.

        Returns:
            Observations (episodes, S), rewards of this step (episodes,), and (episodes,) bool: episode
            finished.
        """
        ...

    def graphs(self, observations: Tensor) -> Any:
        """The batch of graphs (on the CPU) of the rows of observations (B, S), in their order."""
        ...
