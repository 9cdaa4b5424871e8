"""The pruning episode: shrink the channel groups of a network until it meets its budget, then be scored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from torch import Tensor

from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.rl.env.score import Score
from gnnrl_lightning.rl.state.builder import EDGE_DIM, StateBuilder

_ROOM = 0.6
"""The first policy's actions are at most this, if possible: from there ratios can grow as well as shrink."""


class VectorPruningEnv:
    """Pruning episodes of one network, stepped as one batch (`gnnrl_lightning.rl.env.protocol.VectorGraphEnv`).

    An episode starts from the dense network. An action is a pruning ratio for each channel group, relative to
    its present width: a in [0, 1] stands for the ratio a * max_ratio, and

        width' = max(round(width * (1 - ratio)), min_width),

    within the limits that the user sets for the group.

    The episode ends when the budget is met, at the latest after max_steps, and its last widths are projected
    onto the budget: no constraint is broken and no group could be wider. The reward of that step is the score of
    the candidate; all other rewards are 0. A dense network within budget and limits ends the episode before the first
    step.

    Observations are rows of `action_dim + M + 1` numbers: the widths, the limits of the M metrics that are shown (MACs,
    parameters, and what else the budget names) relative to the dense network, and the share of steps left.

    Args:
        graph: The traced network.
        limits: What the pruned network may cost, see `Budget.on`.
        score: Rewards of finished candidates, see `gnnrl_lightning.rl.env.score`; None: 0, where nobody learns.
        max_steps: Steps of an episode at most.
        max_ratio_per_step: Largest pruning ratio in one step. With max_steps 1 it is 1: every width is in
            reach.
        macs_range: Each episode has a limit of MACs of its own, drawn from this range (shares of the dense ones), in
            place of the budget's: a policy for all budgets.
        statistics: (G, K) statistics of the groups for the state; see `StateBuilder`.
        proposals: What to start from, see `gnnrl_lightning.search.allocations`: the widths (B, G) that a cheap method
            takes for limits of MACs relative to the dense network (B,). The state then has the fields `proposal`, the
            action that brings each group there, and `proposal_step`. None: no such fields.
        penalty: The reward of a candidate that is over the budget when its episode ends, in place of the projection:
            nothing is filled up or cut then, and only candidates within the budget are scored. The paper has -100.
            None: Every candidate is projected.

    Attributes:
        setting: What a policy's states and actions depend on, plain strings by name: `load_policy` compares.

    Raises:
        UserError: Max_steps, max_ratio_per_step or macs_range are out of range, or the network cannot be pruned to the
            lower end of macs_range.

    Source: GNN-RL (ICML 2022), section 4.4; the projection replaces its penalty for networks over budget.
    """

    def __init__(
        self,
        graph: ComputationGraph,
        limits: BoundBudget,
        score: Score | None,
        *,
        max_steps: int = 5,
        max_ratio_per_step: float = 0.3,
        macs_range: tuple[float, float] | None = None,
        statistics: Tensor | None = None,
        penalty: float | None = None,
        proposals: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if max_steps < 1:
            raise UserError(f"max_steps is {max_steps}, expected at least 1")
        if not 0 < max_ratio_per_step <= 1:
            raise UserError(f"max_ratio_per_step is {max_ratio_per_step}, expected a number in (0, 1]")
        if macs_range is not None and not 0 < macs_range[0] <= macs_range[1] < 1:
            raise UserError(f"macs_range is {macs_range}, expected two shares below 1, the smaller one first")
        self.graph, self.score, self.limits, self.macs_range = graph, score, limits, macs_range
        self.max_steps, self.penalty, self.proposals = max_steps, penalty, proposals
        self.max_ratio = 1.0 if max_steps == 1 else max_ratio_per_step
        self.builder = StateBuilder(graph, statistics, limits.metrics)
        self.state_dim, self.action_dim = self.builder.state_dim, len(graph.groups)
        # The smallest limits of MACs are the hardest: where they can be met, all can.
        for share in macs_range or ():
            limits.with_limits(macs=share)
        self._limits = self._draw_limits(1, None)
        self.initial_action = self._uniform_action()
        self._widths = graph.widths[None]
        self._done = torch.zeros(1, dtype=torch.bool)
        self._step = 0
        self.setting: dict[str, str] = {}

    @property
    def evaluations(self) -> int:
        """Evaluations so far."""
        return 0 if self.score is None else self.score.evaluations

    def _draw_limits(self, episodes: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Absolute limits (episodes,) of each metric; without a generator those of the middle of the range."""
        limits = {
            name: torch.full((episodes,), limit, dtype=torch.float64) for name, limit in self.limits.limits.items()
        }
        if self.macs_range is not None:
            low, high = self.macs_range
            drawn = torch.full((episodes,), 0.5) if generator is None else torch.rand(episodes, generator=generator)
            limits["macs"] = (low + (high - low) * drawn.double()) * self.limits.dense["macs"]
        return limits

    def _met(self, widths: Tensor) -> Tensor:
        return self.limits.met(widths, self._limits)

    def _uniform_action(self) -> float:
        """Action that, taken for every group in every step, just meets the budget, in as few steps as leave room."""
        keep = torch.linspace(1, 0, 201)[:, None]
        met = self._met(self._round(self.graph.widths * keep))
        share = float(keep[met.nonzero()[0]]) if met.any() else 0.0
        actions = [(1 - share ** (1 / steps)) / self.max_ratio for steps in range(1, self.max_steps + 1)]
        return min(max(next((action for action in actions if action <= _ROOM), actions[-1]), 0.05), 0.95)

    def _round(self, widths: Tensor) -> Tensor:
        ranges = self.graph.ranges
        smallest = torch.maximum(self.graph.widths.clamp(max=self.limits.budget.min_width), ranges.lowest)
        return torch.minimum(torch.maximum(widths.round().long(), smallest), ranges.highest)

    @property
    def widths(self) -> Tensor:
        """Present widths of each episode, (episodes, G) int64."""
        return self._widths

    def _observe(self) -> Tensor:
        left = 1 - self._step / self.max_steps
        rows = len(self._widths)
        none = torch.ones(rows, dtype=torch.float64)
        dense = self.limits.dense.items()
        limits = [self._limits[name] / cost if name in self._limits else none for name, cost in dense]
        return torch.cat([self._widths, torch.stack(limits, 1), torch.full((rows, 1), left)], dim=1).float()

    def reset(self, episodes: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Start episodes from the dense network.

        Args:
            episodes: Number of episodes B.
            generator: Draws their limits, where there is a range; without one they are those of its middle.

        Returns:
            Observations (B, G + M + 1), and (B,) whether the dense network is within the budget already.
        """
        self._step = 0
        self._limits = self._draw_limits(episodes, generator)
        self._widths = self.graph.widths.repeat(episodes, 1)
        self._done = self._met(self._widths)
        return self._observe(), self._done.clone()

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Prune each unfinished episode by its action, and score those that end.

        Args:
            actions: (B G,) in [0, 1], clipped to it: the groups of the first episode, then those of the next.

        Returns:
            Observations (B, G + M + 1), rewards (B,) and (B,) bool: finished.

        Raises:
            ValueError: The actions have another shape, or one of them is NaN.
        """
        if actions.shape != (self._widths.numel(),):
            expected = f"({self._widths.numel()},), {self.action_dim} for each of {len(self._widths)} episodes"
            raise ValueError(f"actions have shape {tuple(actions.shape)}, expected {expected}")
        if actions.isnan().any():
            raise ValueError("an action is NaN: the policy has diverged")
        ratios = actions.to(self._widths.device, torch.float32).clamp(0, 1) * self.max_ratio
        ratios = ratios.view_as(self._widths)
        proposed = torch.where(self._done[:, None], self._widths, self._round(self._widths * (1 - ratios)))
        self._step += 1
        ends = ~self._done & (self._met(proposed) | (self._step >= self.max_steps))
        rewards = torch.zeros(len(proposed))
        if self.penalty is None:
            scored = ends
            limits = {name: limit[ends] for name, limit in self._limits.items()}
            proposed[ends] = self.limits.project(proposed[ends], limits)
        else:
            scored = ends & self._met(proposed)
            rewards[ends] = self.penalty
        if self.score is not None and scored.any():
            rewards[scored] = self.score(proposed[scored])
        self._widths, self._done = proposed, self._done | ends
        return self._observe(), rewards, self._done.clone()

    def graphs(self, observations: Tensor) -> Any:
        """State graphs of observations (B, G + M + 1), with the field `proposal` (B G,) where there are proposals."""
        observations = observations.cpu()
        widths, limits = observations[:, : self.action_dim], observations[:, self.action_dim : -1]
        proposal = None
        if self.proposals is not None:
            step = 1 / (widths * self.max_ratio)
            proposal = ((widths - self.proposals(limits[:, 0])) * step).clamp(0, 1), step
        return self.builder(widths.long(), limits, observations[:, -1], proposal)


class PruningEnv(gymnasium.Env[Any, Any]):
    """One pruning episode at a time as a gymnasium environment; `VectorPruningEnv` says what an episode is.

    ```
    env = PruningEnv(VectorPruningEnv(graph, Budget(macs=0.5).on(graph), score))
    ```

    An observation is the level-2 state graph (`spaces.Graph`: node features, edge features, edges), an action
    the pruning ratio of each group, a `Box` from 0 to max_ratio_per_step. A network within its budget from
    the start is scored as it is in the first step, whatever the action. `info` has the present `widths`.

    Args:
        vector: The episodes, of which one is played at a time.
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
        """Start from the dense network; `seed` decides the limits, where there is a range."""
        super().reset(seed=seed, options=options)
        drawn = int(self.np_random.integers(2**63))
        observations, done = self.vector.reset(1, torch.Generator().manual_seed(drawn))
        self._within = bool(done)
        return self._graph(observations), self._info()

    def step(self, action: Any) -> tuple[spaces.GraphInstance, float, bool, bool, dict[str, Any]]:
        """Prune by these ratios (G,).

        Raises:
            ResetNeeded: The environment has not been reset.
            ValueError: There are not G ratios, or one is NaN.
        """
        if self._within is None:
            raise ResetNeeded("the environment has to be reset before its first step")
        ratios = torch.as_tensor(np.asarray(action, dtype=np.float32))
        observations, rewards, done = self.vector.step(ratios / self.vector.max_ratio)
        score = self.vector.score
        reward = float(rewards if score is None or not self._within else score(self.vector.widths))
        return self._graph(observations), reward, bool(done), False, self._info()
