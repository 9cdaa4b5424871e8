"""The pruning environment for gymnasium: one episode at a time, graphs as observations."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from torch import Tensor

from gnnrl_lightning.rl.env.pruning import VectorPruningEnv
from gnnrl_lightning.rl.state.builder import EDGE_DIM


class PruningEnv(gymnasium.Env[Any, Any]):
    """A gymnasium environment with one pruning episode at a time; `VectorPruningEnv` documents the episodes.

    ```
    env = PruningEnv(VectorPruningEnv(graph, Budget(macs=0.5).on(graph), score))
    ```

    An observation is the level-2 state graph (`spaces.Graph`: node features, edge features, edges). An action holds the
    pruning ratio of each group, a `Box` from 0 to max_ratio_per_step. If the dense network already meets the budget,
    the first step scores it unchanged, whatever the action. `info` contains the current `widths`.

    Args:
        vector: The environment, which plays one episode at a time.
    """

    def __init__(self, vector: VectorPruningEnv) -> None:
        self.vector = vector
        self._within: bool | None = None
        self.action_space = spaces.Box(0.0, vector.max_ratio, (vector.action_dim,), np.float32)
        self.observation_space = spaces.Graph(
            spaces.Box(-np.inf, np.inf, (vector.state_dim,), np.float32),
            spaces.Box(-np.inf, np.inf, (EDGE_DIM,), np.float32),
        )

    def _graph(self, observations: Tensor) -> spaces.GraphInstance:
        state = self.vector.graphs(observations)
        return spaces.GraphInstance(state.x.numpy(), state.edge_attr.numpy(), state.edge_index.T.numpy().copy())

    def _info(self) -> dict[str, Any]:
        return {"widths": self.vector.widths[0].tolist()}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[spaces.GraphInstance, dict[str, Any]]:
        """Start from the dense network; `seed` determines the limit if there is a range."""
        super().reset(seed=seed, options=options)
        drawn = int(self.np_random.integers(2**63))
        observations, done = self.vector.reset(1, torch.Generator().manual_seed(drawn))
        self._within = bool(done)
        return self._graph(observations), self._info()

    def step(self, action: Any) -> tuple[spaces.GraphInstance, float, bool, bool, dict[str, Any]]:
        """Prune by the given ratios (G,).

        Raises:
            ResetNeeded: The environment has not been reset.
            ValueError: The number of ratios is not G, or one is NaN.
        """
        if self._within is None:
            raise ResetNeeded("call reset() before the first step")
        ratios = torch.as_tensor(np.asarray(action, dtype=np.float32))
        observations, rewards, done = self.vector.step(ratios / self.vector.max_ratio)
        score = self.vector.score
        reward = float(rewards if score is None or not self._within else score(self.vector.widths))
        return self._graph(observations), reward, bool(done), False, self._info()
