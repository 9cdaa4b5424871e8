"""The pruning environment: narrow the channel groups of a network until it meets the budget, then score it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.checks import ascending, real, whole
from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.cost.ranges import positive
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.rl.env.imagination import Imagination
from gnnrl_lightning.rl.env.score import Score
from gnnrl_lightning.rl.policies.log_keep import NEVER
from gnnrl_lightning.rl.state.builder import StateBuilder

_ROOM = 0.6
"""Largest initial action, if possible: it leaves room for ratios to grow as well as to shrink."""


ODDS_GONE, ODDS_PRESENT = 2.0, -3.0
"""Initial log-odds of removing groups that the proposal lacks, and of those that it has: of ten groups, about one
changes."""


class VectorPruningEnv:
    """Pruning episodes of one network, stepped as one batch (`gnnrl_lightning.rl.env.protocol.VectorGraphEnv`).

    An episode starts from the dense network. An action is a pruning ratio for each channel group, relative to its
    current width: a in [0, 1] stands for the ratio a * max_ratio, and

        width' = max(round(width * (1 - ratio)), min_width),

    within the user's limits for the group. With min_width 0, groups that may go are removed entirely if at most half a
    channel is left.

    The episode ends as soon as the budget is met, or after max_steps. The final widths are then projected onto the
    budget: they meet all limits, and no group can be widened. The reward of the last step is the score of the
    candidate; all other rewards are 0. If the dense network already meets the budget, the episode is over before its
    first step.

    Observations are rows of `action_dim + M + 1` numbers: the widths, the limits of the M metrics (MACs, parameters
    and any other metric of the budget) relative to the dense network, and the share of remaining steps.

    Args:
        graph: The traced network.
        limits: Budget of the pruned network, bound to the graph by `Budget.on`.
        score: Rewards of finished candidates, see `gnnrl_lightning.rl.env.score`; None: rewards are 0, to run a policy
            without training.
        max_steps: Maximum number of steps of an episode.
        max_ratio_per_step: Largest pruning ratio in one step. If max_steps is 1 it is ignored and taken as 1, so that
            every width can be reached.
        macs_range: Range of MACs limits, as shares of the dense MACs. Each episode draws its own limit instead of
            using the budget's, so that one policy serves all budgets.
        statistics: (G, K) statistics of the groups for the state; see `StateBuilder`.
        proposals: Maps MACs limits (B,), relative to the dense network, to the widths (B, G) of a cheap method that
            initialise the policy, see `gnnrl_lightning.rl.env.proposals`. The state then has the fields `proposal`
            (the action that leads to these widths) and `proposal_step`. None: no such fields.
        penalty: Reward of a candidate that exceeds the budget at the end of its episode, instead of projecting it:
            candidates are then never changed, and only those that meet the budget are scored. The paper uses -100.
            None: every candidate is projected.
        imagined: Scores episodes in place of `score`, by functions that the states show in features of the groups, and
            chooses what they start from among `proposals` and known candidates; None: `score` does.
        group_features: Number of these features; they are zeros without `imagined`.

    Attributes:
        setting: Options that define a policy's states and actions, as strings by name; `load_policy` compares them.

    Raises:
        UserError: `max_steps`, `max_ratio_per_step` or `macs_range` is out of range, or this network cannot meet the
            lower end of `macs_range`.

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
        imagined: Imagination | None = None,
        group_features: int = 0,
    ) -> None:
        whole("max_steps", max_steps, 1)
        real("max_ratio_per_step", max_ratio_per_step, 0, 1, "(]")
        if macs_range is not None:
            ascending("macs_range", macs_range, "two shares below 1, the smaller one first", 1, "()")
        self.graph, self.score, self.limits, self.macs_range = graph, score, limits, macs_range
        self.max_steps, self.penalty, self.proposals = max_steps, penalty, proposals
        self.max_ratio = 1.0 if max_steps == 1 else max_ratio_per_step
        self.imagined = imagined
        self.builder = StateBuilder(graph, statistics, limits.metrics, group_features)
        self.state_dim, self.action_dim = self.builder.state_dim, len(graph.groups)
        # Raises if the network cannot meet the ends of the range.
        for share in macs_range or ():
            limits.with_limits(macs=share)
        self._limits = self._draw_limits(1, None)
        self.initial_action = self._uniform_action()
        self._widths = graph.widths[None]
        groups = len(graph.groups)
        self._start = torch.zeros(1, 0 if proposals is None else groups)
        self._features = torch.zeros(1, groups, group_features)
        self._done = torch.zeros(1, dtype=torch.bool)
        self._step = 0
        self.setting: dict[str, str] = {}

    @property
    def evaluations(self) -> int:
        """Number of evaluations so far."""
        return 0 if self.score is None else self.score.evaluations

    def _draw_limits(self, episodes: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Absolute limits (episodes,) of each metric; without a generator, the middle of the range."""
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
        """Action that just meets the budget if taken throughout, with the fewest steps that keep it below _ROOM."""
        keep = torch.linspace(1, 0, 201)[:, None]
        met = self._met(self._round(self.graph.widths * keep))
        share = float(keep[met.nonzero()[0]]) if met.any() else 0.0
        actions = [(1 - share ** (1 / steps)) / self.max_ratio for steps in range(1, self.max_steps + 1)]
        return min(max(next((action for action in actions if action <= _ROOM), actions[-1]), 0.05), 0.95)

    def _round(self, widths: Tensor) -> Tensor:
        return self.limits.allowed.round(widths)

    @property
    def widths(self) -> Tensor:
        """Current widths of each episode, (episodes, G) int64."""
        return self._widths

    def _beginnings(self, episodes: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Proposed widths (B, G), none (B, 0) if there are no proposals, and features of the groups (B, G, K)."""
        limits = self._relative_limits(episodes)
        start = self.proposals(limits[:, 0]) if self.proposals is not None else torch.zeros(episodes, 0)
        if self.imagined is None:
            return start, torch.zeros(episodes, len(self.graph.groups), self.builder.group_features)
        return self.imagined.begin(start, self._limits, generator or torch.Generator().manual_seed(0))

    def _relative_limits(self, rows: int) -> Tensor:
        """Limits (B, M) relative to the dense network, 1 where there is none."""
        none = torch.ones(rows, dtype=torch.float64)
        dense = self.limits.dense.items()
        limits = [self._limits[name] / cost if name in self._limits else none for name, cost in dense]
        return torch.stack(limits, 1).float()

    def _observe(self) -> Tensor:
        left = 1 - self._step / self.max_steps
        rows = len(self._widths)
        parts = [self._widths, self._relative_limits(rows), torch.full((rows, 1), left)]
        return torch.cat([*parts, self._start, self._features.flatten(1)], dim=1).float()

    def reset(self, episodes: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Start episodes from the dense network.

        Args:
            episodes: Number of episodes B.
            generator: Draws the limits if there is a range; None: all limits are in the middle of the range.

        Returns:
            Observations (B, S), and (B,) bool: whether the dense network already meets the budget.
        """
        self._step = 0
        self._limits = self._draw_limits(episodes, generator)
        self._widths = self.graph.widths.repeat(episodes, 1)
        self._start, self._features = self._beginnings(episodes, generator)
        self._done = self._met(self._widths)
        return self._observe(), self._done.clone()

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Prune the network in each unfinished episode, and score the episodes that end.

        Args:
            actions: (B G,), concatenated over episodes; clipped to [0, 1].

        Returns:
            Observations (B, S), rewards (B,), and (B,) bool: whether the episode is over.

        Raises:
            ValueError: The actions have the wrong shape, or one of them is NaN.
        """
        if actions.shape != (self._widths.numel(),):
            expected = f"({self._widths.numel()},), {self.action_dim} for each of {len(self._widths)} episodes"
            raise ValueError(f"actions have shape {tuple(actions.shape)}: expected {expected}")
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
            rewards[ends & ~scored] = self.penalty
        if scored.any():
            if self.imagined is not None:
                rewards[scored] = self.imagined.rewards(proposed[scored], scored.nonzero()[:, 0])
            elif self.score is not None:
                rewards[scored] = self.score(proposed[scored])
        self._widths, self._done = proposed, self._done | ends
        return self._observe(), rewards, self._done.clone()

    def graphs(self, observations: Tensor) -> Any:
        """State graphs for observations (B, S), with the field `proposal` (B G,) if there are proposals."""
        observations = observations.cpu()
        groups, metrics = self.action_dim, len(self.limits.dense)
        sizes = [groups, metrics, 1, self._start.shape[1], groups * self.builder.group_features]
        widths, limits, left, start, features = observations.split(sizes, dim=1)
        proposal, odds, removable = None, None, self.limits.allowed.removable
        if start.shape[1]:
            step = 1 / (positive(widths) * self.max_ratio)
            proposal = ((widths - positive(start)) * step).clamp(0, 1), step
            if removable is not None:
                odds = torch.where(start < 1, ODDS_GONE, ODDS_PRESENT).masked_fill(~removable, NEVER)
        features = features.view(len(features), groups, -1) if self.builder.group_features else None
        return self.builder(widths.long(), limits, left[:, 0], proposal, features, odds)
