"""The protocols of graph environments that learners train on, and of what scores candidates from imagined ones."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class VectorGraphEnv(Protocol):
    """An environment on graphs that steps several episodes as one batch.

    Observations are plain tensors with one row per episode and only the quantities that change (for pruning: widths,
    limits, remaining steps); `graphs` builds the policy's input, a batch of graphs, from such rows. A rollout is
    therefore a few small tensors that can be shuffled, moved between devices and stored in a checkpoint.

    A batch of graphs is a `torch_geometric.data.Batch`, or any object with the fields of
    `gnnrl_lightning.rl.state.graph.StateGraph` that the policy reads. Decisions are flat: graphs may differ in their
    number of decisions, and `decision_batch` maps each decision to its graph.

    Attributes:
        state_dim: Number of node features.
        action_dim: Decisions per graph, each an action in [0, 1]; None if graphs differ in their number of decisions.
        initial_action: Action in (0, 1) on which an untrained policy should centre.
    """

    state_dim: int
    initial_action: float

    @property
    def action_dim(self) -> int | None:
        """Decisions per graph."""
        ...

    @property
    def evaluations(self) -> int:
        """Number of evaluations so far."""
        ...

    def reset(self, episodes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Start episodes; the generator is the only source of randomness.

        Returns:
            Observations (episodes, S), and (episodes,) bool: whether the episode is already over.
        """
        ...

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take one step in each episode; actions of finished episodes are ignored.

        Args:
            actions: (D,) in [0, 1], concatenated over episodes.

        Returns:
            Observations (episodes, S), rewards of this step (episodes,), and (episodes,) bool: whether the episode is
            over.
        """
        ...

    def graphs(self, observations: Tensor) -> Any:
        """Batch of graphs (on the CPU) for observations (B, S), in the same order."""
        ...


class Evaluate(Protocol):
    """Scores the most promising of imagined candidates, see `gnnrl_lightning.rl.acquisition.Acquisition`.

    Attributes:
        figures: Name -> figure of the last call, for logs.
        predicted: Predicted and actual rewards so far; checkpoints have them.
    """

    figures: dict[str, float]
    predicted: list[tuple[float, float]]

    def __call__(self, widths: Tensor, count: int, seed: int) -> Tensor:
        """Rewards `(m,)`, m at most `count`, of candidates chosen with the help of final widths `(n, G)`."""
        ...
